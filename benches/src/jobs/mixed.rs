//! Callers that write and read, as fast as they are answered.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use vault_client::{Client, DataClass, DetokenizeOptions, NewValue, Plaintext, Purpose, SubjectId, Token};

use super::place::Place;

/// How long callers call before it counts.
pub(super) const WARM_UP: Duration = Duration::from_secs(1);
/// Connections that the callers share.
const CONNECTIONS: usize = 4;

/// A synthetic value about one of many patients.
pub(super) fn value(number: usize) -> NewValue {
    let value = Plaintext::new(format!("patient-{number}@example.org"));
    let subject = SubjectId::new(format!("p-{:06}", number / 3)).expect("letters and digits");
    NewValue::new(DataClass::EMAIL, value).about(subject)
}

/// Callers under way.
pub(super) struct Load {
    clients: Vec<Client>,
    tasks: JoinSet<Told>,
    stopping: Arc<AtomicBool>,
}

/// What callers were told.
#[derive(Default)]
pub(super) struct Told {
    /// When a call ended, and how long it took.
    pub(super) times: Vec<(Instant, Duration)>,
    /// Calls, or their items, that failed.
    pub(super) failed: u64,
    /// Calls that the client made again.
    pub(super) repeated: u64,
}

/// Of a stretch of time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Figures {
    pub(super) rate: f64,
    pub(super) p50: Duration,
    pub(super) p99: Duration,
    pub(super) longest: Duration,
}

impl Load {
    pub(super) fn start(
        place: &Place,
        tenants: &[String],
        tokens: &[(usize, Token)],
        callers: usize,
    ) -> anyhow::Result<Self> {
        let clients = (0..CONNECTIONS).map(|_| place.client("service")).collect::<Result<Vec<_>, _>>()?;
        let (mut tasks, stopping) = (JoinSet::new(), Arc::<AtomicBool>::default());
        let tokens: Arc<[_]> = tokens.into();
        for caller in 0..callers {
            let client = &clients[caller % CONNECTIONS];
            let clients = tenants.iter().map(|tenant| client.for_tenant(tenant)).collect();
            tasks.spawn(calls(clients, caller, Arc::clone(&tokens), Arc::clone(&stopping)));
        }
        Ok(Self { clients, tasks, stopping })
    }

    pub(super) async fn stop(mut self) -> anyhow::Result<Told> {
        self.stopping.store(true, Ordering::Relaxed);
        let mut all = Told::default();
        while let Some(told) = self.tasks.join_next().await {
            let told = told?;
            all.times.extend(told.times);
            all.failed += told.failed;
        }
        all.repeated = self.clients.iter().map(Client::repeats).sum();
        Ok(all)
    }
}

impl Told {
    pub(super) fn between(&self, (from, until): (Instant, Instant)) -> Figures {
        let within = self.times.iter().filter(|(at, _)| (from..until).contains(at));
        let mut times: Vec<_> = within.map(|(_, took)| *took).collect();
        times.sort_unstable();
        let at = |percent: usize| times.get(times.len() * percent / 100).copied().unwrap_or_default();
        Figures {
            #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
            rate: times.len() as f64 / (until - from).as_secs_f64(),
            p50: at(50),
            p99: at(99),
            longest: times.last().copied().unwrap_or_default(),
        }
    }
}

/// By turns: a value is kept, two are read, two are shown masked.
async fn calls(
    clients: Vec<Client>,
    caller: usize,
    tokens: Arc<[(usize, Token)]>,
    stopping: Arc<AtomicBool>,
) -> Told {
    let options = DetokenizeOptions::default();
    let mut told = Told::default();
    let mut number = caller * 7919;
    while !stopping.load(Ordering::Relaxed) {
        number += 1;
        let (tenant, token) = &tokens[number.wrapping_mul(2_654_435_761) % tokens.len()];
        let (client, one) = (&clients[*tenant], std::slice::from_ref(token));
        let started = Instant::now();
        let done = match number % 5 {
            0 => client.tokenize(vec![value(number)]).await.is_ok_and(|all| all.iter().all(Result::is_ok)),
            1 | 3 => {
                let values = client.detokenize(one, Purpose::Treatment, &options).await;
                values.is_ok_and(|all| all.iter().all(Result::is_ok))
            }
            _ => client.mask(one).await.is_ok_and(|all| all.iter().all(Result::is_ok)),
        };
        let ended = Instant::now();
        told.failed += u64::from(!done);
        told.times.push((ended, ended - started));
    }
    told
}
