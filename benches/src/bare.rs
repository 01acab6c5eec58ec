//! A bare loop over the statements of a recording: the same SQL with the same parameters, in the same batches, on as
//! many connections, by the driver that the vault uses. Each row of an answer is read into values.

use std::collections::{BTreeMap, VecDeque};
use std::hint::black_box;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{iter, mem};

use anyhow::Context as _;
use bytes::{Buf as _, Bytes, BytesMut};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_postgres::types::{IsNull, ToSql, Type, to_sql_checked};
use tokio_postgres::{Client, NoTls, Row};

use crate::replay::{Sending, Sent};

/// What one round trip does.
enum Statement {
    /// SQL alone.
    Plain(String),
    /// SQL and its parameters.
    Typed(String, Vec<(Parameter, Type)>),
}

/// A parameter as it goes over the wire.
#[derive(Debug)]
struct Parameter(Option<Bytes>);

impl ToSql for Parameter {
    fn to_sql(
        &self,
        _: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        let Some(bytes) = &self.0 else { return Ok(IsNull::Yes) };
        out.extend_from_slice(bytes);
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}

impl Statement {
    /// What a vault sent until an answer was due; `None` for what is no statement.
    fn read(mut messages: Bytes) -> anyhow::Result<Option<Self>> {
        let (mut sql, mut types) = (None, Vec::new());
        let mut parameters = Vec::new();
        // The first message of a connection has no tag: it begins with its length.
        while messages.len() > 5 && messages[0] != 0 {
            let tag = messages.get_u8();
            let length = messages.get_u32().checked_sub(4).context("a length")?;
            let mut body = messages.split_to(length as usize);
            match tag {
                b'Q' => return Ok(Some(Self::Plain(text(&mut body)?))),
                b'P' => {
                    text(&mut body)?;
                    sql = Some(text(&mut body)?);
                    for _ in 0..body.get_u16() {
                        types.push(Type::from_oid(body.get_u32()).context("a type")?);
                    }
                }
                b'B' => parameters = bound(body)?,
                _ => {}
            }
        }
        Ok(sql.map(|sql| Self::Typed(sql, parameters.into_iter().zip(types).collect())))
    }

    /// Whether it writes what follows from log entries: it does nothing if they are not there yet.
    fn derives(&self) -> bool {
        matches!(self, Self::Typed(sql, _) if sql.contains("INSERT INTO log_heads"))
    }

    /// Whether a transaction is open after it that several statements are in, if one was `open` before.
    fn leaves_open(&self, open: bool) -> bool {
        match self {
            Self::Plain(sql) if sql.ends_with("COMMIT") || sql.starts_with("ROLLBACK") => false,
            Self::Plain(sql) => open || sql.starts_with("BEGIN"),
            Self::Typed(..) => open,
        }
    }

    async fn run(&self, client: &Client) -> anyhow::Result<()> {
        match self {
            Self::Plain(sql) => client.batch_execute(sql).await?,
            Self::Typed(sql, parameters) => {
                let typed: Vec<_> =
                    parameters.iter().map(|(value, of)| (value as &(dyn ToSql + Sync), of.clone())).collect();
                for row in client.query_typed(sql, &typed).await? {
                    black_box(values(&row)?);
                }
            }
        }
        Ok(())
    }
}

fn text(body: &mut Bytes) -> anyhow::Result<String> {
    let end = body.iter().position(|byte| *byte == 0).context("a text without an end")?;
    let text = body.split_to(end);
    body.advance(1);
    Ok(String::from_utf8(text.to_vec())?)
}

/// Of a message that binds: portal, statement, formats, parameters.
fn bound(mut body: Bytes) -> anyhow::Result<Vec<Parameter>> {
    text(&mut body)?;
    text(&mut body)?;
    let formats = body.get_u16();
    body.advance(usize::from(formats) * 2);
    let count = body.get_u16();
    let parameter = |_| {
        let length = usize::try_from(body.get_i32()).ok();
        Parameter(length.map(|length| body.split_to(length)))
    };
    Ok((0..count).map(parameter).collect())
}

/// A value of a row.
#[expect(dead_code, reason = "read as a caller would, then dropped")]
enum Value {
    Number(Option<i64>),
    Text(Option<String>),
    Bytes(Option<Vec<u8>>),
    Texts(Option<Vec<String>>),
    Arrays(Option<Vec<Vec<u8>>>),
}

fn values(row: &Row) -> anyhow::Result<Vec<Value>> {
    let value = |(at, column): (usize, &tokio_postgres::Column)| {
        Ok(match *column.type_() {
            Type::BOOL => Value::Number(row.try_get::<_, Option<bool>>(at)?.map(i64::from)),
            Type::INT2 => Value::Number(row.try_get::<_, Option<i16>>(at)?.map(i64::from)),
            Type::INT4 => Value::Number(row.try_get::<_, Option<i32>>(at)?.map(i64::from)),
            Type::INT8 => Value::Number(row.try_get(at)?),
            Type::TEXT => Value::Text(row.try_get(at)?),
            Type::BYTEA => Value::Bytes(row.try_get(at)?),
            Type::TEXT_ARRAY => Value::Texts(row.try_get(at)?),
            Type::BYTEA_ARRAY => Value::Arrays(row.try_get(at)?),
            ref other => anyhow::bail!("a column of type {other}"),
        })
    };
    row.columns().iter().enumerate().map(value).collect()
}

/// When a loop sends a statement.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// When the one before it on its connection is answered, whatever the other connections do: a log entry may be
    /// written before the records have been read that it is about. What follows from entries waits as it did, since
    /// the same SQL without them writes nothing.
    Free,
    /// And when all are answered that had been when it was recorded: nothing is written before what it follows from.
    AsRecorded,
}

/// What a connection sends, if that is a statement, and after how many answers on each connection.
type Step = (Option<Statement>, Vec<usize>);

/// A loop for each connection of a recording, ready to go.
pub(crate) struct Loops {
    loops: Vec<Loop>,
    answered: Arc<Answered>,
}

struct Loop {
    client: Client,
    /// Whether it is within a transaction.
    open: bool,
    steps: VecDeque<Step>,
}

/// How many were answered on each connection.
struct Answered {
    counts: Vec<AtomicUsize>,
    more: Notify,
}

impl Answered {
    async fn wait_for(&self, after: &[usize]) {
        let all =
            || self.counts.iter().zip(after).all(|(count, wanted)| count.load(Ordering::SeqCst) >= *wanted);
        loop {
            let mut more = pin!(self.more.notified());
            more.as_mut().enable();
            if all() {
                return;
            }
            more.await;
        }
    }

    fn note(&self, connection: usize) {
        self.counts[connection].fetch_add(1, Ordering::SeqCst);
        self.more.notify_waiters();
    }
}

impl Loop {
    /// Sends `count` steps, each when the last is answered and `order` lets it, and what ends a transaction that is open then.
    async fn send(
        &mut self,
        connection: usize,
        count: usize,
        order: Order,
        answered: &Answered,
    ) -> anyhow::Result<()> {
        let mut sent = 0;
        while sent < count || self.open {
            let Some((statement, after)) = self.steps.pop_front() else {
                // The recording ended within it.
                if mem::take(&mut self.open) {
                    self.client.batch_execute("ROLLBACK").await?;
                }
                break;
            };
            let derives = statement.as_ref().is_some_and(Statement::derives);
            // Within a transaction it holds locks, for which what it would wait for may wait.
            if !self.open && (derives || order == Order::AsRecorded) {
                answered.wait_for(&after).await;
            }
            if let Some(statement) = statement {
                statement.run(&self.client).await?;
                self.open = statement.leaves_open(self.open);
            }
            answered.note(connection);
            sent += 1;
        }
        Ok(())
    }
}

impl Loops {
    /// Sends what comes before the measured part, in its order.
    pub(crate) async fn prepare(url: &str, recording: &[Sending]) -> anyhow::Result<Self> {
        let mut loops = Vec::new();
        for Sending { sent, .. } in recording {
            let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
            tokio::spawn(connection);
            let step = |sent: &Sent| anyhow::Ok((Statement::read(sent.bytes.clone())?, sent.after.clone()));
            loops.push(Loop { client, open: false, steps: sent.iter().map(step).collect::<Result<_, _>>()? });
        }
        let counts = loops.iter().map(|_| AtomicUsize::new(0)).collect();
        let mut this = Self { loops, answered: Arc::new(Answered { counts, more: Notify::new() }) };
        this.send(recording.iter().map(|of| of.before), Order::AsRecorded).await?;
        Ok(this)
    }

    /// Sends the measured part.
    pub(crate) async fn run(mut self, order: Order) -> anyhow::Result<()> {
        self.send(iter::repeat(usize::MAX), order).await
    }

    /// So many steps of each.
    async fn send(&mut self, counts: impl Iterator<Item = usize>, order: Order) -> anyhow::Result<()> {
        let mut running = JoinSet::new();
        for ((connection, mut one), count) in mem::take(&mut self.loops).into_iter().enumerate().zip(counts) {
            let answered = Arc::clone(&self.answered);
            running.spawn(async move {
                one.send(connection, count, order, &answered).await?;
                anyhow::Ok((connection, one))
            });
        }
        let mut done = BTreeMap::new();
        // The first that fails ends them all: others may wait for its answers.
        while let Some(ended) = running.join_next().await {
            done.extend([ended??]);
        }
        self.loops = done.into_values().collect();
        Ok(())
    }
}
