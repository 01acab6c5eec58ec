//! Shows how far a job is.

use std::io::{self, IsTerminal as _};
use std::pin::pin;
use std::time::Duration;

use futures::StreamExt as _;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use vault_client::keys::{Job, JobId, JobNews, JobState};
use vault_client::{Client, Reason};

use super::show;
use crate::args::Global;
use crate::failure::{Exit, Failure};
use crate::output;
use crate::paste::tell;

/// How often there is a line where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// What a job means for the exit code, as it stands.
pub(super) fn exit_of(job: &Job) -> Exit {
    match job.state {
        JobState::Asked => Exit::AsksApproval,
        JobState::Failed | JobState::Cancelled | JobState::Paused => Exit::JobFailed,
        JobState::Done if job.failed > 0 => Exit::JobFailed,
        _ => Exit::Done,
    }
}

/// Says what has to happen next to a job that asks for approval.
pub(super) fn tell_of_approval(global: &Global, job: &Job) {
    if !global.json && job.state == JobState::Asked {
        let paste = global.paste();
        let answer = |verb: &str| format!("jobs {verb} {}", job.id);
        tell(&format!(
            "nothing is done yet: an admin other than {} has to approve it; then it waits, for as long as \
             `keys.destroy_after` of your vault says (a day, unless it says otherwise)\n{}\nto take it back:\n    {}",
            job.asked_by.escape_debug(),
            paste.theirs_told(&job.tenant, &answer("approve")),
            paste.mine(&job.tenant, &answer("cancel")),
        ));
    }
}

/// Says that a job is paused: in cron's mail, too, since nothing comes of it before somebody looks.
pub(super) fn tell_of_pause(global: &Global, job: &Job) {
    if job.state == JobState::Paused {
        let resume = global.paste().mine(&job.tenant, &format!("jobs resume {}", job.id));
        tell(&format!(
            "the {} job {} is paused, and nothing comes of it until somebody resumes it:\n    {resume}",
            job.kind, job.id
        ));
    }
}

/// Shows how a job stands until it is over, or somebody has to do something about it: approve it or resume it, which may take
/// days.
pub(super) async fn follow(
    global: &Global,
    client: &Client,
    id: JobId,
    patience: Duration,
) -> Result<Exit, Failure> {
    let mut news = pin!(client.watch_job(id, patience).await?);
    let screen = Screen::new(global.json);
    // The first line comes with the first news.
    let mut lines = tokio::time::interval_at(tokio::time::Instant::now() + LINE_EVERY, LINE_EVERY);
    let mut last: Option<JobNews> = None;
    let job = loop {
        tokio::select! {
            next = news.next() => {
                let Some(next) = next.transpose()? else { return Err(lost(id)) };
                let is_new = last.as_ref().is_none_or(|last| last.job.state != next.job.state);
                screen.news(&next, is_new)?;
                if next.job.state.is_over() || matches!(next.job.state, JobState::Asked | JobState::Paused) {
                    break screen.end(&next)?;
                }
                last = Some(next);
            }
            _ = lines.tick() => if let Some(last) = &last { screen.line(last) },
        }
    };
    tell_of_approval(global, &job);
    tell_of_pause(global, &job);
    Ok(exit_of(&job))
}

fn lost(id: JobId) -> Failure {
    let message = format!("another job took the place of {id}: how it ended is in the vault's log");
    Failure::new(Exit::JobFailed, Reason::NotFound, message)
}

/// Where news of a job go.
enum Screen {
    /// Each in a line of JSON.
    Json,
    /// Into a bar.
    Bar(ProgressBar),
    /// Into lines, now and then.
    Lines,
}

impl Screen {
    fn new(as_json: bool) -> Self {
        if as_json {
            return Self::Json;
        }
        if !io::stderr().is_terminal() {
            return Self::Lines;
        }
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        let style = ProgressStyle::with_template("{bar:30} {percent:>3}% {msg}");
        Self::Bar(bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar())))
    }

    fn news(&self, news: &JobNews, is_new_state: bool) -> io::Result<()> {
        match self {
            Self::Json => show::news(news)?,
            Self::Bar(bar) => {
                bar.set_length(news.job.total);
                bar.set_position(news.job.done.saturating_add(news.job.failed));
                bar.set_message(show::progress(news));
            }
            Self::Lines if is_new_state && !news.job.state.is_over() => eprintln!("{}", show::progress(news)),
            Self::Lines => {}
        }
        Ok(())
    }

    fn line(&self, news: &JobNews) {
        if matches!(self, Self::Lines) {
            eprintln!("{}", show::progress(news));
        }
    }

    fn end(&self, news: &JobNews) -> io::Result<Job> {
        match self {
            Self::Json => {}
            Self::Bar(bar) => {
                bar.finish_and_clear();
                output::line(&show::progress(news))?;
            }
            Self::Lines => output::line(&show::progress(news))?,
        }
        Ok(news.job.clone())
    }
}
