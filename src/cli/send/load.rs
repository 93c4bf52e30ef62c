//! Many deliveries: a bound on how many are under way, a schedule, and what came of them.

use std::io::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use futures_util::{StreamExt as _, stream};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::ids::Ids;
use super::maker::Maker;
use super::post::{Answer, Client, NoAnswer};
use super::tally::Tally;
use crate::cli::output;
use crate::cli::serve::Signals;

/// How many, and how fast.
#[derive(Clone, Copy)]
pub(super) struct Plan {
    pub(super) count: u64,
    /// Deliveries under way at the same time.
    pub(super) concurrency: usize,
    /// Deliveries per second; `None`: as fast as the answers come.
    pub(super) rate: Option<f64>,
}

/// What the tasks share.
pub(super) struct Post {
    pub(super) maker: Maker,
    pub(super) client: Client,
    pub(super) with_ids: bool,
}

/// One delivery's end. The id is there if ids were asked for.
pub(super) struct Ended {
    pub(super) id: Option<String>,
    pub(super) result: Result<Answer, NoAnswer>,
}

impl Post {
    /// Makes one delivery and posts it.
    ///
    /// # Errors
    /// A body that cannot be signed. No answer is no error here.
    pub(super) async fn one(&self, begin: Instant) -> anyhow::Result<Ended> {
        let signed = self.maker.make()?;
        let id = if self.with_ids { self.maker.id(&signed) } else { None };
        Ok(Ended { id, result: self.client.post(signed, begin).await })
    }
}

/// Sends until all are answered. Ctrl-C stops the sending and waits for what is under way; a
/// second one stops the waiting.
///
/// # Errors
/// A body that cannot be signed, or the file of ids cannot be written.
pub(super) async fn run(post: Arc<Post>, plan: Plan, ids: &mut Ids) -> anyhow::Result<Tally> {
    let mut signals = Signals::new()?;
    let stop = CancellationToken::new();
    let start = Instant::now();
    let begun = stream::iter(0..plan.count)
        .then(|n| wait(start, n, plan.rate))
        .take_until(stop.clone().cancelled_owned())
        .map(|begin| spawn(post.clone(), begin))
        .buffer_unordered(plan.concurrency);
    tokio::pin!(begun);
    let bar = bar(plan.count);
    let mut tally = Tally::new()?;
    loop {
        tokio::select! {
            ended = begun.next() => match ended {
                Some(ended) => {
                    let ended = ended.context("a delivery's task failed")??;
                    ids.add(&ended)?;
                    tally.add(&ended);
                    show(&bar, &tally);
                }
                None => break,
            },
            () = signals.next() => {
                if stop.is_cancelled() {
                    break;
                }
                stop.cancel();
                bar.suspend(|| writeln!(output::stderr(), "stopping: waiting for what is under way; Ctrl-C again to leave it"))?;
            }
        }
    }
    bar.finish_and_clear();
    tally.took = start.elapsed();
    Ok(tally)
}

/// Waits for the turn of delivery `n` and says from when its time counts: from its turn, also
/// where it comes late because all places were taken. Else a service that stalls would slow the
/// sender down and look fast.
async fn wait(start: Instant, n: u64, rate: Option<f64>) -> Instant {
    let Some(rate) = rate else { return Instant::now() };
    let turn = start + Duration::from_secs_f64(n as f64 / rate);
    if turn <= Instant::now() {
        return turn;
    }
    tokio::time::sleep_until(turn.into()).await;
    // A timer is up to 1 ms late, which is not the service's fault.
    Instant::now()
}

/// A task for each, so that signing uses all processors.
fn spawn(post: Arc<Post>, begin: Instant) -> JoinHandle<anyhow::Result<Ended>> {
    tokio::spawn(async move { post.one(begin).await })
}

/// On standard error, and nowhere unless that is a terminal.
fn bar(count: u64) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(count), ProgressDrawTarget::stderr());
    let template = "{bar:30} {human_pos} of {human_len}  {per_sec}  {eta} left{msg}";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar
}

fn show(bar: &ProgressBar, tally: &Tally) {
    let failed = tally.failed();
    if failed > 0 {
        bar.set_message(format!("  {failed} not 2xx"));
    }
    bar.inc(1);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_late_turn_counts_from_when_it_was_due() {
        let start = Instant::now() - Duration::from_secs(10);
        assert_eq!(wait(start, 3, Some(2.0)).await, start + Duration::from_millis(1500));
        assert!(wait(start, 3, None).await > start + Duration::from_secs(9));
    }
}
