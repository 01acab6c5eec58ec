//! Looks for jobs, takes them, and lays them down again.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::shift::{End, Shift, Stop};
use super::{ended, mandate, rewrap, work};
use crate::audit::{Log, LogError};
use crate::crypto::Mandate;
use crate::domain::class::Classes;
use crate::domain::{Clock, Job, JobKind, JobPlace, JobState, LeaseName, TenantId, Timestamp, VaultIdentity};
use crate::keyring::Keyring;
use crate::store::{Leases, Store, StoreError};

/// How workers work.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// How often they look for jobs.
    pub poll: Duration,
    /// How long a worker that is silent keeps a job.
    pub lease: Duration,
    /// Jobs that this process works on at once.
    pub at_once: usize,
}

/// What workers work with.
pub struct Parts {
    /// Which vault this is.
    pub identity: VaultIdentity,
    /// The data classes.
    pub classes: Arc<Classes>,
    /// Where things are kept.
    pub store: Arc<dyn Store>,
    /// The vault's keys.
    pub keyring: Arc<Keyring>,
    /// The log.
    pub log: Arc<Log>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Takes leases for this process.
    pub leases: Leases,
    /// How they work.
    pub options: Options,
    /// Ends them.
    pub stopping: CancellationToken,
}

/// The workers of a process.
pub struct Workers {
    parts: Arc<Parts>,
    busy: Arc<Mutex<HashSet<JobPlace>>>,
}

/// Rows that are looked at at once.
const PAGE: usize = 256;

impl Workers {
    /// With these parts.
    pub fn new(parts: Parts) -> Self {
        Self { parts: Arc::new(parts), busy: Arc::default() }
    }

    /// Works until the process stops.
    pub async fn run(self) {
        let mut ticks = interval(self.parts.options.poll);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = self.parts.stopping.cancelled() => break,
                _ = ticks.tick() => {}
            }
            if let Err(error) = self.look().await {
                tracing::debug!(%error, "jobs could not be looked for");
            }
        }
        // Shifts hear of it between their steps.
        while !self.busy.lock().is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Takes the jobs that wait for a worker.
    async fn look(&self) -> Result<(), StoreError> {
        let mut after: Option<JobPlace> = None;
        loop {
            let page = self.parts.store.jobs(after.as_ref(), PAGE).await?;
            let Some(last) = page.last() else { return Ok(()) };
            after = Some(last.place.clone());
            for job in page {
                self.take(job).await?;
            }
        }
    }

    async fn take(&self, job: Job) -> Result<(), StoreError> {
        let now = self.parts.clock.now();
        let is_due = job.state == JobState::Running && job.order.not_before <= now;
        {
            let busy = self.busy.lock();
            if !is_due || busy.contains(&job.place) || busy.len() >= self.parts.options.at_once {
                return Ok(());
            }
        }
        let Some(held) = self.parts.leases.take(&lease_name(&job.place), self.parts.options.lease).await?
        else {
            return Ok(());
        };
        // As it stands under the lease.
        let job = self.parts.store.job(&job.place).await?;
        let Some(job) = job.filter(|job| job.state == JobState::Running) else {
            // It ends by itself, and nobody waits for it.
            return Ok(());
        };
        tracing::info!(job = %job.id, kind = job.place.kind.as_str(), done = job.progress.done, "takes a job up");
        let place = job.place.clone();
        let busy = Busy { all: Arc::clone(&self.busy), place: place.clone() };
        self.busy.lock().insert(place);
        let shift = Shift::new(Arc::clone(&self.parts), job, held);
        tokio::spawn(async move {
            let _busy = busy;
            serve(shift).await;
        });
        Ok(())
    }
}

/// Takes the place off the list of what this process works on, however the work ends.
struct Busy {
    all: Arc<Mutex<HashSet<JobPlace>>>,
    place: JobPlace,
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.all.lock().remove(&self.place);
    }
}

async fn serve(mut shift: Shift) {
    let (job, kind) = (shift.job.id, shift.job.place.kind.as_str());
    let outcome = match work(&mut shift).await {
        Ok(end) => shift.end(end, Vec::new()).await,
        Err(stop) => Err(stop),
    };
    match outcome {
        Ok(()) => tracing::info!(%job, kind, state = shift.job.state.as_str(), "a job ended"),
        Err(Stop::Lost) => {
            tracing::warn!(%job, kind, "a job was taken over by another worker");
            return;
        }
        Err(Stop::Told | Stop::Stopping) => {
            tracing::info!(%job, kind, "a job was laid down");
        }
        Err(Stop::Trouble(why)) => {
            tracing::warn!(%job, kind, why, "a job was laid down, to be taken up later");
            // How far it was is of use to who watches, and lost otherwise.
            let _ = shift.report().await;
        }
    }
    shift.release().await;
}

async fn work(shift: &mut Shift) -> Result<End, Stop> {
    let now = shift.parts.clock.now();
    if shift.job.begun == Timestamp(0) {
        shift.job.begun = now;
    }
    shift.job.changed = now;
    let Some(tenant) = shift.job.place.tenant.clone() else {
        return match shift.job.place.kind {
            JobKind::Rewrap => rewrap::rewrap(shift).await,
            _ => Ok(End::Failed("needs_a_tenant")),
        };
    };
    let mandate = Arc::new(begin(shift, tenant.clone()).await?);
    match shift.job.place.kind {
        JobKind::Reencrypt => work::reencrypt(shift, &mandate).await,
        JobKind::Reindex => work::reindex(shift, &mandate).await,
        JobKind::Rewrap => rewrap::rewrap(shift).await,
        JobKind::Destroy => ended::destroy(shift, &tenant).await,
        JobKind::Shred => ended::shred(shift, &tenant).await,
    }
}

async fn begin(shift: &mut Shift, tenant: TenantId) -> Result<Mandate, Stop> {
    shift.job.revision += 1;
    mandate::begin(&shift.parts.log, tenant, &shift.job, shift.fence()).await.map_err(|error| match error {
        LogError::Conflict { write: 0 } => Stop::Lost,
        LogError::Conflict { .. } => Stop::Told,
        error => error.into(),
    })
}

fn lease_name(place: &JobPlace) -> LeaseName {
    let kind = place.kind.as_str();
    let name = match &place.tenant {
        Some(tenant) => format!("job/{tenant}/{kind}"),
        None => format!("job-of-vault/{kind}"),
    };
    LeaseName::parse(&name).expect("tenants' names and kinds are parts of a lease's name")
}
