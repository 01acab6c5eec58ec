//! `vaultctl jobs`

use clap::{Args, Subcommand};
use vault_client::keys::{Job, JobId, JobState};
use vault_client::{Client, Reason};

use super::approve::{ApproveArgs, approve};
use super::{Patience, show, watch};
use crate::args::Global;
use crate::describe::time;
use crate::failure::{Exit, Failure};
use crate::paste::tell;
use crate::short_id::{self, ShortId};

/// See, approve and steer jobs on keys.
#[derive(Subcommand)]
pub(crate) enum JobsCommand {
    /// List the newest job of each kind, under way or over; of all tenants with `--tenant '*'`.
    List,
    /// Show how far a job is, until it is over. It ends at once if the job asks for approval, or is paused.
    Watch(WatchArgs),
    /// Approve a job that somebody else asked for. Shows it, and asks whether you mean it.
    Approve(ApproveArgs),
    /// Let a job rest where it is.
    Pause(JobArgs),
    /// Let a job go on. A destruction has to be approved again.
    Resume(JobArgs),
    /// End a job where it is. What is done stays done.
    Cancel(JobArgs),
}

/// Which job.
#[derive(Args)]
pub(crate) struct JobArgs {
    /// The job's id, or its first digits (6 at least).
    job: ShortId<OfJob>,
}

#[derive(Debug, Clone)]
struct OfJob;

impl short_id::Kind for OfJob {
    const NAME: &'static str = "job";
    const LIST: &'static str = "jobs list";
}

impl JobArgs {
    async fn resolve(&self, client: &Client) -> Result<JobId, Failure> {
        if let Some(Ok(id)) = self.job.whole().map(str::parse) {
            return Ok(id);
        }
        Ok(self.find(client).await?.id)
    }

    /// The job as it stands.
    pub(super) async fn find(&self, client: &Client) -> Result<Job, Failure> {
        let known = client.list_jobs().await?;
        self.job.of(known, |job| job.id.to_string())
    }
}

#[derive(Args)]
pub(crate) struct WatchArgs {
    #[command(flatten)]
    job: JobArgs,

    #[command(flatten)]
    patience: Patience,
}

/// The job; or, if its state is not one for that, which one it is.
async fn or_state(
    client: &Client,
    id: JobId,
    done: Result<Job, vault_client::Error>,
) -> Result<Job, Failure> {
    let error = match done {
        Ok(job) => return Ok(job),
        Err(error) if error.reason() != Reason::JobState => return Err(error.into()),
        Err(error) => error,
    };
    let jobs = client.list_jobs().await.unwrap_or_default();
    let Some(job) = jobs.iter().find(|job| job.id == id) else { return Err(error.into()) };
    let (message, hint) = why_not(job.state);
    Err(Failure::from(error).told(message, hint))
}

/// Why something can't be done about a job as it stands, and what can.
fn why_not(state: JobState) -> (String, &'static str) {
    let hint = match state {
        _ if state.is_over() => "what is still needed has to be begun anew",
        JobState::Asked => "it waits for approval: it can be approved (`jobs approve`) or cancelled",
        JobState::Paused => "it can be resumed or cancelled",
        _ => "`vaultctl jobs watch` shows how far it is",
    };
    (format!("the job is not in a state for that: it is {state}"), hint)
}

pub(crate) async fn run(global: &Global, command: JobsCommand) -> Result<Exit, Failure> {
    let client = global.connect()?;
    let is_approval = matches!(command, JobsCommand::Approve(_));
    let job: Job = match command {
        JobsCommand::List => {
            let jobs = client.list_jobs().await?;
            if jobs.is_empty() && !global.json {
                tell("no job was ever begun here");
            } else {
                show::jobs(global.json, &jobs)?;
            }
            return Ok(Exit::Done);
        }
        JobsCommand::Watch(args) => {
            let id = args.job.resolve(&client).await?;
            return watch::follow(global, &client, id, args.patience.patience).await;
        }
        JobsCommand::Approve(args) => approve(global, &client, args).await?,
        JobsCommand::Pause(job) => {
            let id = job.resolve(&client).await?;
            or_state(&client, id, client.pause_job(id).await).await?
        }
        JobsCommand::Resume(job) => {
            let id = job.resolve(&client).await?;
            or_state(&client, id, client.resume_job(id).await).await?
        }
        JobsCommand::Cancel(job) => {
            let id = job.resolve(&client).await?;
            or_state(&client, id, client.cancel_job(id).await).await?
        }
    };
    show::jobs(global.json, std::slice::from_ref(&job))?;
    if job.state == JobState::Asked {
        // It was held back, and resumed.
        watch::tell_of_approval(global, &job);
        return Ok(Exit::AsksApproval);
    }
    if is_approval && !global.json {
        let watch = global.paste().mine(&job.tenant, &format!("jobs watch {}", job.id));
        let when =
            job.not_before.map_or_else(|| "now".to_owned(), |then| format!("not before {}", time(then)));
        tell(&format!("done: it is approved, and begins {when}. to see how far it is:\n    {watch}"));
    }
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_job_is_not_good_for_is_told_by_its_state() {
        for state in [JobState::Asked, JobState::Running, JobState::Paused, JobState::Done] {
            assert!(why_not(state).0.contains(state.as_str()), "{state}");
        }
        assert!(
            why_not(JobState::Cancelled).1.contains("anew")
                && why_not(JobState::Paused).1.contains("resumed")
        );
    }
}
