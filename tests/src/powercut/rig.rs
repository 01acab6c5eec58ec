//! Cuts, one after the other.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use parking_lot::Mutex;

use super::Subject;
use super::audit::{Findings, check};
use super::disk::{Mounted, missing, run};
use super::workload::{Acknowledged, Entries};

/// What to do.
#[derive(Debug, Clone)]
pub struct RigOptions {
    /// What is under test.
    pub subject: Subject,
    /// How many cuts.
    pub cuts: u32,
    /// Where images and mount points go.
    pub dir: PathBuf,
    /// Tasks of the child.
    pub writers: usize,
    /// Which log entries the child writes.
    pub entries: Entries,
    /// Of the instants.
    pub seed: u64,
}

/// What came of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Cuts made.
    pub cuts: u32,
    /// Acknowledgements checked, over all cuts.
    pub acknowledged: usize,
    /// Of those, not there any more.
    pub lost: usize,
    /// Cuts after which something acknowledged was lost, or a change was there in part, or the store did not open.
    pub bad_cuts: u32,
    /// Of those, cuts after which the store did not open.
    pub unreadable: u32,
}

/// Cuts on one image.
const CUTS_PER_IMAGE: u32 = 5;

/// The writer goes on twice from what the last cut of an image left; then a new image is begun, so that none
/// fills up.
const GENERATIONS: u32 = 3;

/// Cuts the power. `Err` if the rig cannot run here.
pub async fn cut_power(options: &RigOptions) -> Result<Outcome> {
    if let Some(missing) = missing() {
        bail!("{missing}");
    }
    let mut random = Random(options.seed | 1);
    let mut outcome = Outcome::default();
    while outcome.cuts < options.cuts {
        let mut left =
            Left { disk: Mounted::create(&name(options, "0.img"), &name(options, "0"))?, noted: vec![] };
        for generation in 1..=GENERATIONS {
            let before = outcome;
            left = one_image(options, generation, left, &mut random, &mut outcome).await?;
            // Nothing can be expected of a store that has lost something.
            if outcome.cuts >= options.cuts || outcome.bad_cuts > before.bad_cuts {
                break;
            }
        }
    }
    Ok(outcome)
}

/// What a cut left, and the acknowledgements of before.
struct Left {
    disk: Mounted,
    noted: Vec<Acknowledged>,
}

fn name(options: &RigOptions, what: &str) -> PathBuf {
    options.dir.join(format!("{}-{}-{what}", options.subject.as_str(), std::process::id()))
}

/// Writes on `left`; what the last of its cuts left.
async fn one_image(
    options: &RigOptions,
    generation: u32,
    left: Left,
    random: &mut Random,
    outcome: &mut Outcome,
) -> Result<Left> {
    let writer = Writer::start(options, &left.disk.path().join("store"), left.noted)?;
    writer.wait_for_acknowledgements().await?;
    let cuts = CUTS_PER_IMAGE.min(options.cuts - outcome.cuts);
    for cut in 1.. {
        tokio::time::sleep(Duration::from_micros(random.below(300_000))).await;
        let noted = writer.stop()?;
        let copy = name(options, &format!("{generation}.img"));
        left.disk.copy(&copy)?;
        let disk = Mounted::mount(&copy, &name(options, &generation.to_string()))?;
        let findings = check(options.subject, &disk.path().join("store"), &noted).await;
        outcome.add(noted.len(), &findings);
        if cut == cuts {
            return Ok(Left { disk, noted });
        }
        drop(disk);
        writer.go_on()?;
    }
    bail!("no cuts");
}

impl Outcome {
    fn add(&mut self, acknowledged: usize, findings: &Findings) {
        self.cuts += 1;
        self.acknowledged += acknowledged;
        self.lost += findings.lost;
        let bad = findings.lost > 0 || findings.torn || findings.unreadable.is_some();
        self.bad_cuts += u32::from(bad);
        self.unreadable += u32::from(findings.unreadable.is_some());
        if bad {
            println!("cut {}: {acknowledged} acknowledged, {findings:?}", self.cuts);
        }
    }
}

/// The child process, killed when dropped.
struct Writer {
    child: Child,
    acknowledged: Arc<Mutex<Vec<Acknowledged>>>,
    /// Of those, how many are of the writers before.
    before: usize,
}

impl Writer {
    fn start(options: &RigOptions, store: &Path, noted: Vec<Acknowledged>) -> Result<Self> {
        let mut child = Command::new(std::env::current_exe().context("this program's path")?)
            .args(["--engine", options.subject.as_str(), "--writers", &options.writers.to_string()])
            .args((options.entries == Entries::Short).then_some("--short-entries"))
            .arg("--write-to")
            .arg(store)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("the writer")?;
        let mut pipe = child.stdout.take().context("the writer's pipe")?;
        let before = noted.len();
        let acknowledged = Arc::new(Mutex::new(noted));
        let noted = Arc::clone(&acknowledged);
        std::thread::spawn(move || {
            let mut bytes = [0; Acknowledged::LEN];
            // Ends with the child.
            while pipe.read_exact(&mut bytes).is_ok() {
                noted.lock().push(Acknowledged::from_bytes(bytes));
            }
        });
        Ok(Self { child, acknowledged, before })
    }

    async fn wait_for_acknowledgements(&self) -> Result<()> {
        for _ in 0..3000 {
            if self.acknowledged.lock().len() > self.before {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        bail!("the writer wrote nothing");
    }

    /// Stops the child; what it had acknowledged before.
    fn stop(&self) -> Result<Vec<Acknowledged>> {
        self.signal("-STOP")?;
        Ok(self.acknowledged.lock().clone())
    }

    fn go_on(&self) -> Result<()> {
        self.signal("-CONT")
    }

    fn signal(&self, signal: &str) -> Result<()> {
        run("kill", &[signal, &self.child.id().to_string()]).map(|_| ())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if let Err(error) = self.child.kill().and_then(|()| self.child.wait()) {
            eprintln!("the writer: {error}");
        }
    }
}

/// xorshift64*: the instants of a seed, not a secret.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) % limit
    }
}
