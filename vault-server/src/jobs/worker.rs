//! Looks for jobs, takes them, and lays them down again.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::agreement::{Agreement, Verdict};
use super::shift::{End, Shift, Stop};
use super::steps::{Step, reached};
use super::tally::Tally;
use super::{ended, mandate, rewrap, work};
use crate::audit::{Log, LogError};
use crate::crypto::Mandate;
use crate::domain::class::Classes;
use crate::domain::{
    Clock, Job, JobId, JobKind, JobPlace, JobState, LeaseName, TenantId, Timestamp, VaultIdentity,
};
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
    /// How long a destruction waits after its approval.
    pub waiting: Duration,
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
    /// Where they count.
    pub tally: Arc<Tally>,
    /// How they work.
    pub options: Options,
    /// Ends them.
    pub stopping: CancellationToken,
}

/// The workers of a process.
pub struct Workers {
    parts: Arc<Parts>,
    agreement: Arc<Agreement>,
    state: Arc<Mutex<State>>,
    /// That there may be room for another job.
    room: Arc<Notify>,
}

#[derive(Default)]
struct State {
    /// What this process works on.
    busy: HashSet<JobPlace>,
    /// What was in trouble: how often in a row, and until when it is left alone.
    resting: HashMap<JobPlace, (u32, Instant)>,
    /// Destructions that are approved, and since when this process knows. An approval that came anew has another time
    /// before which nothing is done, and is known from then on only.
    known: HashMap<(JobId, Timestamp), Instant>,
    /// The place that was taken last: others have their turn before it.
    last: Option<JobPlace>,
    /// Rows that can't be read.
    corrupt: Vec<String>,
}

/// A job in trouble is left alone for so long, and twice as long after each further one.
const FIRST_REST: Duration = Duration::from_secs(1);
const LONGEST_REST: Duration = Duration::from_mins(2);
/// However far a clock is off: a process has known of an approved destruction for so long, or for as long as it had to
/// wait, before it carries it out.
const KNOWN_FOR: Duration = Duration::from_hours(1);

impl Workers {
    /// With these parts.
    pub fn new(parts: Parts) -> Self {
        let (store, clock) = (Arc::clone(&parts.store), Arc::clone(&parts.clock));
        let agreement = Agreement::new(store, clock, parts.keyring.kms_set(), parts.options.lease);
        Self {
            parts: Arc::new(parts),
            agreement: Arc::new(agreement),
            state: Arc::default(),
            room: Arc::default(),
        }
    }

    /// Says to the other instances which KMS keys this one is configured with. To be called before it serves anybody.
    pub async fn announce(&self) -> Result<(), StoreError> {
        match self.agreement.say().await {
            // Whoever re-wraps looks at the same row, and ends for it.
            Err(StoreError::Corrupt { what }) => {
                let row = what;
                tracing::error!(
                    row,
                    "what this instance says of its KMS keys is not what was written: nobody re-wraps"
                );
                Ok(())
            }
            said => said,
        }
    }

    /// Works until the process stops. It looks for jobs now and then, and at once when one is out of its hands.
    pub async fn run(self) {
        let mut ticks = interval(self.parts.options.poll);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = self.parts.stopping.cancelled() => break,
                _ = ticks.tick() => {}
                () = self.room.notified() => {}
            }
            if let Err(error) = self.agreement.say().await {
                tracing::warn!(%error, "other instances could not be told which KMS keys this one has");
            }
            match self.due().await {
                Ok(due) => self.take_all(due).await,
                Err(error) => tracing::warn!(%error, "jobs could not be looked for"),
            }
        }
        // Shifts hear of it between their steps.
        while !self.state.lock().busy.is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        self.agreement.unsay().await;
    }

    /// The jobs that wait for a worker, those past the one that was taken last first.
    async fn due(&self) -> Result<Vec<Job>, StoreError> {
        let found = self.parts.store.jobs_under_way().await?;
        self.parts.tally.saw(&found);
        self.name_corrupt(found.corrupt);
        let mut running = found.jobs;
        running.retain(|job| job.state == JobState::Running);
        let approved = running.iter().filter(|job| is_irreversible(job.place.kind)).map(approval);
        let approved: Vec<(JobId, Timestamp)> = approved.collect();
        let last = {
            let mut state = self.state.lock();
            state.known.retain(|approval, _| approved.contains(approval));
            for approval in approved {
                state.known.entry(approval).or_insert_with(Instant::now);
            }
            state.last.clone()
        };
        running.retain(|job| self.is_due(job));
        running.sort_by_key(|job| (Some(&job.place) <= last.as_ref(), job.place.clone()));
        Ok(running)
    }

    /// Tells of rows that can't be read, once each.
    fn name_corrupt(&self, corrupt: Vec<String>) {
        let mut state = self.state.lock();
        for row in corrupt.iter().filter(|row| !state.corrupt.contains(*row)) {
            tracing::error!(row, "a job's row is not what was written: nobody works on that job");
        }
        state.corrupt = corrupt;
    }

    /// Whether it may be worked on now, by somebody.
    fn is_due(&self, job: &Job) -> bool {
        let parts = &self.parts;
        if job.state != JobState::Running {
            return false;
        }
        // Nobody waits for a clock in order to seal anew what a compromised key has sealed.
        if !is_irreversible(job.place.kind) {
            return true;
        }
        // By the clock it is due; by the time that has passed here it may not be.
        let long_known = |since: &Instant| since.elapsed() >= KNOWN_FOR.min(parts.options.waiting);
        job.order.not_before <= parts.clock.now()
            && self.state.lock().known.get(&approval(job)).is_some_and(long_known)
    }

    async fn take_all(&self, due: Vec<Job>) {
        for job in due {
            let place = job.place.clone();
            if let Err(error) = self.take(job).await {
                // The others are not to wait for it.
                tracing::warn!(tenant = ?place.tenant, kind = place.kind.as_str(), %error, "a job could not be taken up");
            }
        }
    }

    async fn take(&self, job: Job) -> Result<(), StoreError> {
        if !self.has_room(&job.place) {
            return Ok(());
        }
        let Some(held) = self.parts.leases.take(&lease_name(&job.place), self.parts.options.lease).await?
        else {
            return Ok(());
        };
        reached(job.place.kind, Step::Leased);
        // As it stands under the lease: it may be another by now.
        let there = self.parts.store.job(&job.place).await?;
        reached(job.place.kind, Step::Read);
        let Some(job) = there.filter(|there| there.id == job.id && self.is_due(there)) else {
            // Who takes what comes to be at this place next is not to wait for it.
            if let Err(error) = self.parts.leases.release(held).await {
                tracing::debug!(%error, "a job's lease was not given back: it ends by itself");
            }
            return Ok(());
        };
        tracing::info!(job = %job.id, kind = job.place.kind.as_str(), done = job.progress.done, "takes a job up");
        let place = job.place.clone();
        let busy = Busy { state: Arc::clone(&self.state), place: place.clone() };
        {
            let mut state = self.state.lock();
            state.busy.insert(place.clone());
            state.last = Some(place.clone());
        }
        let shift = Shift::new(Arc::clone(&self.parts), Arc::clone(&self.agreement), job, held);
        let room = Arc::clone(&self.room);
        tokio::spawn(async move {
            let is_well = serve(shift).await;
            busy.state.lock().rest(place, is_well);
            drop(busy);
            room.notify_one();
        });
        Ok(())
    }

    /// Whether this process may take it up: so many at once, and one of a tenant, so that no tenant's slow jobs are in the
    /// way of others'. What is soon done is in nobody's way.
    fn has_room(&self, place: &JobPlace) -> bool {
        let state = self.state.lock();
        let rests = state.resting.get(place).is_some_and(|(_, until)| Instant::now() < *until);
        if rests || state.busy.contains(place) {
            return false;
        }
        let long = || state.busy.iter().filter(|busy| !is_irreversible(busy.kind));
        is_irreversible(place.kind)
            || (long().count() < self.parts.options.at_once && long().all(|busy| busy.tenant != place.tenant))
    }
}

impl State {
    fn rest(&mut self, place: JobPlace, is_well: bool) {
        if is_well {
            self.resting.remove(&place);
            return;
        }
        let (times, until) = self.resting.entry(place).or_insert((0, Instant::now()));
        *until = Instant::now() + FIRST_REST.saturating_mul(1 << (*times).min(16)).min(LONGEST_REST);
        *times = times.saturating_add(1);
    }
}

/// What can't be taken back. It takes no time, either.
fn is_irreversible(kind: JobKind) -> bool {
    matches!(kind, JobKind::Destroy | JobKind::Shred)
}

/// By what one approval of a job is told from the next.
fn approval(job: &Job) -> (JobId, Timestamp) {
    (job.id, job.order.not_before)
}

/// Takes the place off the list of what this process works on, however the work ends.
struct Busy {
    state: Arc<Mutex<State>>,
    place: JobPlace,
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.state.lock().busy.remove(&self.place);
    }
}

/// Whether it went as it should.
async fn serve(mut shift: Shift) -> bool {
    let (job, kind) = (shift.job.id, shift.job.place.kind.as_str());
    let outcome = match work(&mut shift).await {
        Ok(end) => {
            reached(shift.job.place.kind, Step::Proven);
            shift.end(end).await
        }
        Err(Stop::Corrupt(why)) => {
            tracing::error!(%job, kind, why, "a job can't be done: a row is not what was written");
            shift.end(End::Failed("corrupt_row")).await
        }
        Err(stop) => Err(stop),
    };
    match outcome {
        Ok(()) => {
            shift.parts.tally.ended(&shift.job);
            reached(shift.job.place.kind, Step::Ended);
            tracing::info!(%job, kind, state = shift.job.state.as_str(), "a job ended");
        }
        Err(Stop::Lost) => {
            // It is in good hands; and if not, two that take it from each other are not to do so without a rest.
            tracing::warn!(%job, kind, "a job was taken over by another worker");
            return false;
        }
        Err(Stop::Told | Stop::Stopping) => {
            tracing::info!(%job, kind, "a job was laid down");
        }
        Err(Stop::Disagreed) => {
            tracing::warn!(%job, kind, "a re-wrap waits: instances are configured with different KMS keys");
            shift.release().await;
            return false;
        }
        Err(Stop::Corrupt(why) | Stop::Trouble(why)) => {
            tracing::warn!(%job, kind, why, "a job was laid down, to be taken up later");
            // How far it was is of use to who watches. The trouble may have been that it stood still for too long.
            if matches!(shift.report().await, Err(Stop::Lost)) {
                tracing::warn!(%job, kind, "a job was taken over by another worker");
                return false;
            }
            shift.release().await;
            return false;
        }
    }
    let kind = shift.job.place.kind;
    shift.release().await;
    reached(kind, Step::Released);
    true
}

async fn work(shift: &mut Shift) -> Result<End, Stop> {
    if shift.job.place.kind == JobKind::Rewrap {
        match shift.agreement.on(&shift.job).await? {
            Verdict::Go => {}
            Verdict::Wait => return Err(Stop::Disagreed),
            Verdict::Fail => return Ok(End::Failed("kms_keys_differ")),
        }
    }
    let now = shift.parts.clock.now();
    if shift.job.begun == Timestamp(0) {
        shift.job.begun = now;
    }
    shift.job.changed = now;
    let Some(tenant) = shift.job.place.tenant.clone() else {
        shift.put_begin().await?;
        return match shift.job.place.kind {
            JobKind::Rewrap => rewrap::rewrap(shift).await,
            _ => Ok(End::Failed("needs_a_tenant")),
        };
    };
    let mandate = Arc::new(begin(shift, tenant.clone()).await?);
    reached(shift.job.place.kind, Step::Mandated);
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
