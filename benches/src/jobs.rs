//! Jobs on keys: what callers notice of them, how fast they are alone, and how fast the store is for the same bytes.

mod mixed;
mod place;

use std::time::{Duration, Instant, SystemTime};

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use tokio::time::sleep;
use vault_client::keys::{Job, JobKind, JobOrder, JobState, KeyPurpose, KeyState, Note};
use vault_client::{Client, Token};
use vault_server::domain::{Body, KeyId, Record};
use vault_server::store::{Change, Store, Write};

use crate::cpu;
use mixed::{Figures, Load};
use place::Place;

/// How often jobs are looked at.
const LOOK: Duration = Duration::from_millis(250);
/// Rows that are read at once before they are put.
const READ: usize = 16_384;
/// No bound.
const UNBOUNDED: u64 = 1 << 40;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Engine {
    Fjall,
    Sled,
    Postgres,
}

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// What keeps the rows. PostgreSQL is found as in `postgres`.
    #[arg(long, value_enum, default_value = "fjall")]
    pub(crate) engine: Engine,

    /// Records, over all tenants.
    #[arg(long, default_value_t = 1_000_000)]
    records: usize,

    /// Tenants.
    #[arg(long, default_value_t = 20)]
    tenants: usize,

    /// Seconds of the load without a job, before and after.
    #[arg(long, default_value_t = 15)]
    seconds: u64,

    /// Callers at the same time.
    #[arg(long, default_value_t = 16)]
    callers: usize,

    /// Bytes a second of a job beside the load; 0: the vault's default.
    #[arg(long, default_value_t = 0)]
    budget: u64,

    /// Records of a commit of the bare put: as many as a job's.
    #[arg(long, default_value_t = 512)]
    batch: usize,

    /// Commits of the bare put at once: as many as those of a job without a bound.
    #[arg(long, default_value_t = 32)]
    at_once: usize,

    /// Only the job alone, and the bare put.
    #[arg(long)]
    alone: bool,

    /// So often the job alone.
    #[arg(long, default_value_t = 1)]
    times: usize,
}

pub(crate) async fn run(options: &Options) -> anyhow::Result<()> {
    let mut place = Place::make(options).await?;
    let bench = Bench {
        tenants: (0..options.tenants).map(place::tenant).collect(),
        service: place.client("service")?,
        rotator: place.client("rotator")?,
        admin: place.client("admin")?,
        second: place.client("approver")?,
        process: place.process(),
    };
    let tokens = bench.fill(options.records).await?;
    if !options.alone {
        bench.beside(options, &place, &tokens).await?;
    }
    for _ in 0..options.times {
        bench.alone().await?;
    }
    place.stop();
    let store = place.open_store().await?;
    bare(&*store, options).await?;
    store.close().await?;
    Ok(())
}

struct Bench {
    tenants: Vec<String>,
    service: Client,
    rotator: Client,
    admin: Client,
    second: Client,
    process: u32,
}

/// What came of jobs, one for each tenant.
struct Ended {
    jobs: Vec<Job>,
    /// From the first one's beginning to the last one's end, by the vault's clock.
    took: Duration,
    /// Of that: while one was under way.
    busy: Duration,
}

impl Bench {
    /// Tokens of some of the records, each with the number of its tenant.
    async fn fill(&self, records: usize) -> anyhow::Result<Vec<(usize, Token)>> {
        const BATCH: usize = 1000;
        /// Of so many records one is read by the load.
        const ONE_OF: usize = 50;
        let begin = Instant::now();
        let batches = stream::iter((0..records).step_by(BATCH).enumerate()).map(|(number, from)| {
            let tenant = number % self.tenants.len();
            let client = self.service.for_tenant(&self.tenants[tenant]);
            async move {
                let values = (from..records.min(from + BATCH)).map(mixed::value).collect();
                let tokens = client.tokenize(values).await?.into_iter().collect::<Result<Vec<_>, _>>()?;
                anyhow::Ok(tokens.into_iter().step_by(ONE_OF).map(move |token| (tenant, token)))
            }
        });
        let tokens: Vec<_> = batches.buffer_unordered(3).try_collect().await?;
        let took = begin.elapsed();
        println!("{records} records of {} tenants in {took:.1?}", self.tenants.len());
        Ok(tokens.into_iter().flatten().collect())
    }

    /// The load without a job, with jobs, and without again.
    async fn beside(
        &self,
        options: &Options,
        place: &Place,
        tokens: &[(usize, Token)],
    ) -> anyhow::Result<()> {
        let load = Load::start(place, &self.tenants, tokens, options.callers)?;
        let quiet = async || {
            let from = Instant::now() + mixed::WARM_UP;
            sleep(mixed::WARM_UP + Duration::from_secs(options.seconds)).await;
            (from, Instant::now())
        };
        let before = quiet().await;
        let begin = Instant::now();
        self.rotate().await?;
        let moved = self.reencrypt(options.budget).await?;
        let sealed = Instant::now();
        self.destroy().await?;
        let destroyed = Instant::now();
        let after = quiet().await;
        let told = load.stop().await?;
        let alone = told.between(before);
        println!(
            "{:<28} {:>9} {:>10} {:>10} {:>7} {:>10}",
            "a mixed load", "calls /s", "p50", "p99", "ratio", "longest"
        );
        let row = |name: &str, figures: Figures| {
            let Figures { rate, p50, p99, longest } = figures;
            let ratio = p99.as_secs_f64() / alone.p99.as_secs_f64();
            println!("{name:<28} {rate:>9.0} {p50:>10.2?} {p99:>10.2?} {ratio:>6.2}x {longest:>10.2?}");
        };
        row("no job, before", alone);
        row("rotated and sealed anew", told.between((begin, sealed)));
        row("old versions destroyed", told.between((sealed, destroyed)));
        row("from rotation to destruction", told.between((begin, destroyed)));
        row("no job, after", told.between(after));
        println!(
            "{} calls, {} failed, {} repeated by the client",
            told.times.len(),
            told.failed,
            told.repeated
        );
        moved.print("beside the load");
        anyhow::ensure!(told.failed == 0, "calls failed");
        Ok(())
    }

    /// The job with nothing beside it and no bound.
    async fn alone(&self) -> anyhow::Result<()> {
        self.rotate().await?;
        self.rest().await;
        let (begin, before) = (Instant::now(), cpu::of_process(self.process));
        let mut memory = vec![(Duration::ZERO, resident(self.process)?)];
        let watch = async {
            loop {
                sleep(LOOK).await;
                memory.push((begin.elapsed(), resident(self.process)?));
            }
            #[expect(unreachable_code, reason = "names the error's type")]
            anyhow::Ok(())
        };
        let ended = tokio::select! {
            ended = self.reencrypt(UNBOUNDED) => ended?,
            watched = watch => { watched?; unreachable!("it ends with an error only") }
        };
        let spent = cpu::of_process(self.process).saturating_sub(before);
        ended.print("alone, no bound");
        println!(
            "  processor: {:.2} us a record, {:.2} of 2 cores",
            micros(spent, ended.done()),
            spent.as_secs_f64() / ended.took.as_secs_f64(),
        );
        let step = memory.len().div_ceil(12).max(1);
        let points = memory.iter().step_by(step).map(|(at, rss)| format!("{:.0}s {rss}", at.as_secs_f64()));
        println!("  resident, MiB: {}", points.collect::<Vec<_>>().join(", "));
        println!("  at most, MiB: {}", peak(self.process)?);
        Ok(())
    }

    /// Waits until the server has merged what was written before: nothing is to go on beside a job that is alone.
    async fn rest(&self) {
        const MOST: Duration = Duration::from_mins(1);
        const IDLE: f64 = 0.05;
        let until = Instant::now() + MOST;
        loop {
            let (from, before) = (Instant::now(), cpu::of_process(self.process));
            sleep(Duration::from_secs(1)).await;
            let spent = cpu::of_process(self.process).saturating_sub(before);
            if spent.as_secs_f64() < IDLE * from.elapsed().as_secs_f64() || Instant::now() > until {
                return;
            }
        }
    }

    /// A new version of each tenant's data key.
    async fn rotate(&self) -> anyhow::Result<()> {
        for tenant in &self.tenants {
            let client = self.rotator.for_tenant(tenant);
            let rotation = client.rotate_key(KeyPurpose::Data, None, &Note::default()).await?;
            anyhow::ensure!(rotation.rotated, "not rotated");
        }
        Ok(())
    }

    async fn reencrypt(&self, budget: u64) -> anyhow::Result<Ended> {
        let mut order = JobOrder::new(JobKind::Reencrypt);
        order.bytes_per_second = budget;
        let order = &order;
        // All at once: to begin one, the vault counts what there is to do.
        stream::iter(&self.tenants)
            .map(|tenant| async move {
                self.rotator.for_tenant(tenant).start_job(order, &Note::default()).await
            })
            .buffer_unordered(4)
            .try_for_each(async |_| Ok(()))
            .await?;
        self.over(JobKind::Reencrypt).await
    }

    /// Destroys all versions that were replaced.
    async fn destroy(&self) -> anyhow::Result<()> {
        for tenant in &self.tenants {
            let (asks, approves) = (self.admin.for_tenant(tenant), self.second.for_tenant(tenant));
            let keys = asks.list_keys(false).await?;
            let old =
                keys.iter().find(|key| key.purpose == KeyPurpose::Data && key.state == KeyState::Retired);
            let order = JobOrder::new(JobKind::Destroy).of_key(old.context("nothing to destroy")?.id);
            let job = asks.start_job(&order, &Note::default()).await?;
            approves.approve_job(job.id, &Note::default()).await?;
        }
        self.over(JobKind::Destroy).await?;
        Ok(())
    }

    /// Waits for all tenants' jobs of a kind.
    async fn over(&self, kind: JobKind) -> anyhow::Result<Ended> {
        let all = self.admin.for_tenant("*");
        loop {
            let jobs: Vec<_> = all.list_jobs().await?.into_iter().filter(|job| job.kind == kind).collect();
            if jobs.len() == self.tenants.len() && jobs.iter().all(|job| job.state.is_over()) {
                let bad = jobs.iter().find(|job| job.state != JobState::Done || job.failed > 0);
                anyhow::ensure!(bad.is_none(), "a job failed: {bad:?}");
                return Ended::of(jobs);
            }
            sleep(LOOK).await;
        }
    }
}

impl Ended {
    fn of(jobs: Vec<Job>) -> anyhow::Result<Self> {
        let mut spans: Vec<_> = jobs.iter().filter_map(|job| job.begun.zip(job.changed)).collect();
        spans.sort_unstable();
        let first: SystemTime = spans.first().context("no times")?.0;
        let (mut last, mut busy) = (first, Duration::ZERO);
        for (begun, ended) in spans {
            // A clock that went back: it took no time.
            busy += ended.duration_since(begun.max(last)).unwrap_or_default();
            last = last.max(ended);
        }
        Ok(Self { jobs, took: last.duration_since(first)?, busy })
    }

    fn done(&self) -> u64 {
        self.jobs.iter().map(|job| job.done).sum()
    }

    fn print(&self, how: &str) {
        let (done, seconds) = (self.done(), self.took.as_secs_f64());
        let bytes: u64 = self.jobs.iter().map(|job| job.bytes).sum();
        println!(
            "re-encrypt, {how}: {done} records in {seconds:.1} s, {:.0} a second ({:.0} while any job is under way), \
             {:.1} MiB/s of sealed bytes",
            per_second(done, self.took),
            per_second(done, self.busy),
            per_second(bytes, self.took) / f64::from(1 << 20),
        );
    }
}

/// Puts every record again as it is, under another key's name: the rows that a job changes, and no cryptography.
async fn bare(store: &dyn Store, options: &Options) -> anyhow::Result<()> {
    let key = KeyId::random().context("no randomness")?;
    let (mut took, mut spent, mut count) = (Duration::ZERO, Duration::ZERO, 0_u64);
    let mut last = None;
    loop {
        let page = store.scan_records(last, READ).await?;
        let Some(end) = page.last() else { break };
        last = Some(end.token);
        count += page.len() as u64;
        let writes: Vec<_> = page.into_iter().map(|record| Write::Replace(under(record, key))).collect();
        let changes = writes.chunks(options.batch).map(<[Write]>::to_vec).collect::<Vec<_>>();
        let (begin, before) = (Instant::now(), cpu::of_process(std::process::id()));
        stream::iter(changes)
            .map(|writes| store.commit(Change { writes, entries: Vec::new() }))
            .buffered(options.at_once)
            .try_for_each(async |_| Ok(()))
            .await?;
        took += begin.elapsed();
        spent += cpu::of_process(std::process::id()).saturating_sub(before);
    }
    println!(
        "bare put, {} a commit, {} at once: {count} records in {:.1} s, {:.0} a second; {:.2} us a record",
        options.batch,
        options.at_once,
        took.as_secs_f64(),
        per_second(count, took),
        micros(spent, count),
    );
    Ok(())
}

fn under(record: Record, key: KeyId) -> Record {
    let body = match record.body {
        Body::Sealed { key_version, bytes, .. } => Body::Sealed { key_id: key, key_version, bytes },
        erased @ Body::Erased { .. } => erased,
    };
    Record { body, revision: record.revision + 1, ..record }
}

/// Resident memory of a process now, in MiB.
fn resident(process: u32) -> anyhow::Result<u64> {
    memory(process, "VmRSS:")
}

/// The most that it was, in MiB.
fn peak(process: u32) -> anyhow::Result<u64> {
    memory(process, "VmHWM:")
}

fn memory(process: u32, line: &str) -> anyhow::Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let value = text.lines().find_map(|found| found.strip_prefix(line)).context("no such line")?;
    Ok(value.trim().trim_end_matches(" kB").parse::<u64>()? >> 10)
}

#[expect(clippy::cast_precision_loss, reason = "a rate for people")]
fn per_second(count: u64, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64()
}

#[expect(clippy::cast_precision_loss, reason = "a cost for people")]
fn micros(time: Duration, count: u64) -> f64 {
    time.as_secs_f64() * 1e6 / count as f64
}
