//! Tasks that call a vault and remember what they were told.
//!
//! Each task has tokens of its own, so that it knows what every call must answer: what it tokenized is there with that
//! value, whichever instance is asked, and what it erased is gone. A call that failed may have been done or not.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use vault_client::{
    Client, DataClass, DetokenizeOptions, EraseOptions, Error, ItemError, NewValue, Plaintext, Purpose,
    Reason, Token,
};

/// What is known of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It must be there.
    Kept,
    /// An erase failed: it may be there or not.
    Unsure,
    /// It must be gone.
    Erased,
}

/// A token that the vault gave.
pub struct Known {
    /// Its name.
    pub token: Token,
    /// Its value: synthetic.
    pub value: String,
    /// Whether it is there.
    pub state: State,
    /// How often its value was given.
    pub opened: u64,
    /// How often its mask was given.
    pub masked: u64,
}

/// What tasks were told.
#[derive(Default)]
pub struct Told {
    /// All tokens.
    pub tokens: Vec<Known>,
    /// Calls that were answered.
    pub answered: u64,
    /// Calls that failed as a whole, by reason.
    pub failed: BTreeMap<String, u64>,
    /// Answers that are not true.
    pub wrong: Vec<String>,
    /// The longest call.
    pub longest: Duration,
}

impl Told {
    /// Takes what another was told.
    pub fn merge(&mut self, other: Self) {
        self.tokens.extend(other.tokens);
        self.answered += other.answered;
        for (reason, count) in other.failed {
            *self.failed.entry(reason).or_default() += count;
        }
        self.wrong.extend(other.wrong);
        self.longest = self.longest.max(other.longest);
    }

    /// How many writes were acknowledged: tokens given and values erased.
    pub fn writes(&self) -> usize {
        self.tokens.len() + self.tokens.iter().filter(|known| known.state == State::Erased).count()
    }

    /// How many calls failed.
    pub fn failures(&self) -> u64 {
        self.failed.values().sum()
    }
}

/// Load that goes on until it is stopped.
pub struct Load {
    stop: Arc<AtomicBool>,
    tasks: Vec<tokio::task::JoinHandle<Told>>,
}

impl Load {
    /// Starts tasks that share a client, as those of a program do.
    pub fn start(client: &Client, tasks: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let each = |number| {
            let caller = Caller {
                client: client.clone(),
                number,
                told: Told::default(),
                dice: Dice(0x9E37_79B9_7F4A_7C15 ^ ((number as u64 + 1) << 20)),
            };
            tokio::spawn(caller.run(Arc::clone(&stop)))
        };
        Self { tasks: (0..tasks).map(each).collect(), stop }
    }

    /// Lets calls under way end, and gives what all tasks were told.
    ///
    /// # Panics
    /// If a task did.
    pub async fn stop(self) -> Told {
        self.stop.store(true, Ordering::SeqCst);
        let mut all = Told::default();
        for task in self.tasks {
            all.merge(task.await.unwrap());
        }
        all
    }
}

struct Caller {
    client: Client,
    number: usize,
    told: Told,
    dice: Dice,
}

impl Caller {
    async fn run(mut self, stop: Arc<AtomicBool>) -> Told {
        while !stop.load(Ordering::SeqCst) {
            match (self.dice.below(10), self.told.tokens.len()) {
                (0..=2, _) | (_, 0) => self.tokenize().await,
                (3..=5, known) => self.detokenize(known).await,
                (6..=7, known) => self.mask(known).await,
                (8, known) => self.find(known).await,
                (_, known) => self.erase(known).await,
            }
        }
        self.told
    }

    fn any(&mut self, known: usize) -> usize {
        self.dice.below(known as u64) as usize
    }

    /// Some values under one idempotency key.
    async fn tokenize(&mut self) {
        let count = 1 + self.dice.below(3);
        let first = self.told.tokens.len() as u64;
        let values: Vec<_> =
            (first..first + count).map(|at| format!("task-{}-value-{at}@example.org", self.number)).collect();
        let new = values.iter().map(|value| NewValue::new(DataClass::EMAIL, Plaintext::new(value.clone())));
        let begun = Instant::now();
        let answer = self.client.tokenize(new.collect()).await;
        let Some(answer) = self.note("tokenize", begun, answer) else { return };
        for (value, token) in values.into_iter().zip(answer) {
            match token {
                Ok(token) => {
                    let state = State::Kept;
                    self.told.tokens.push(Known { token, value, state, opened: 0, masked: 0 });
                }
                Err(error) => self.wrong("tokenize", &error),
            }
        }
    }

    async fn detokenize(&mut self, known: usize) {
        let at = self.any(known);
        let token = self.told.tokens[at].token.clone();
        let begun = Instant::now();
        let answer =
            self.client.detokenize(&[token], Purpose::Treatment, &DetokenizeOptions::default()).await;
        let Some(answer) = self.note("detokenize", begun, answer) else { return };
        let known = &mut self.told.tokens[at];
        match (known.state, &answer[0]) {
            // Exposed: to be compared with the synthetic value that was given.
            (State::Kept | State::Unsure, Ok(value)) if value.expose() == known.value => known.opened += 1,
            (State::Erased | State::Unsure, Err(error)) if error.reason() == Reason::Erased => {}
            (_, Ok(_)) => self.told.wrong.push(format!("detokenize gave a value ({:?})", known.state)),
            (_, Err(error)) => {
                let error = error.clone();
                self.wrong("detokenize", &error);
            }
        }
    }

    async fn mask(&mut self, known: usize) {
        let at = self.any(known);
        let token = self.told.tokens[at].token.clone();
        let begun = Instant::now();
        let answer = self.client.mask(&[token]).await;
        let Some(answer) = self.note("mask", begun, answer) else { return };
        let known = &mut self.told.tokens[at];
        match (known.state, &answer[0]) {
            (State::Kept | State::Unsure, Ok(_)) => known.masked += 1,
            (State::Erased | State::Unsure, Err(error)) if error.reason() == Reason::Erased => {}
            (_, Ok(_)) => self.told.wrong.push("mask gave an erased value's mask".to_owned()),
            (_, Err(error)) => {
                let error = error.clone();
                self.wrong("mask", &error);
            }
        }
    }

    async fn find(&mut self, known: usize) {
        let at = self.any(known);
        let known = &self.told.tokens[at];
        let (token, state) = (known.token.clone(), known.state);
        let value = Plaintext::new(known.value.clone());
        let begun = Instant::now();
        let answer = self.client.find(&DataClass::EMAIL, vec![value], 0).await;
        let Some(answer) = self.note("find", begun, answer) else { return };
        match &answer[0] {
            Ok(found) => {
                let is_there = found.tokens.contains(&token);
                if (state == State::Kept && !is_there) || (state == State::Erased && is_there) {
                    self.told.wrong.push(format!("find: {state:?}, and found: {is_there}"));
                }
            }
            Err(error) => {
                let error = error.clone();
                self.wrong("find", &error);
            }
        }
    }

    async fn erase(&mut self, known: usize) {
        let at = self.any(known);
        let token = self.told.tokens[at].token.clone();
        let begun = Instant::now();
        let answer = self.client.erase_tokens(&[token], &EraseOptions::default()).await;
        // Until it is answered, and if it never is: perhaps.
        let known = &mut self.told.tokens[at];
        if known.state == State::Kept {
            known.state = State::Unsure;
        }
        let Some(answer) = self.note("erase", begun, answer) else { return };
        match &answer[0] {
            Ok(_) => self.told.tokens[at].state = State::Erased,
            Err(error) => {
                let error = error.clone();
                self.wrong("erase", &error);
            }
        }
    }

    /// The answer, if there is one.
    fn note<T>(&mut self, call: &str, begun: Instant, answer: Result<T, Error>) -> Option<T> {
        self.told.longest = self.told.longest.max(begun.elapsed());
        match answer {
            Ok(answer) => {
                self.told.answered += 1;
                Some(answer)
            }
            Err(error) => {
                let reason = format!("{call}: {} ({:?}) {error}", error.reason(), error.code());
                *self.told.failed.entry(reason).or_default() += 1;
                None
            }
        }
    }

    fn wrong(&mut self, call: &str, error: &ItemError) {
        self.told.wrong.push(format!("{call}: {} {error}", error.reason()));
    }
}

/// Numbers that look random, the same in each run (xorshift64).
pub struct Dice(pub u64);

impl Dice {
    /// A number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % bound
    }
}
