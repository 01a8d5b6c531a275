//! The limits of policies files (CONTRACT 8): those by address before anybody is asked for, the others once the rules let a request pass.
//! `Gate::check` asks; which limits there are says `core::policy::limits`, and what is left the counters.
//!
//! A request goes on only where all that may refuse it were taken. Where nobody can say whose count it is, or the counters cannot answer, it does
//! not: neither is "no limit".

use std::sync::Arc;

use super::Gate;
use crate::{
    core::{
        policy::{Due, Question, Source, Stage},
        quota::{Refusal, Standing},
        site::Site,
        verdict::Verdict,
    },
    ports::{Ask, CounterKey, Taken},
};

/// Values of `rate_limit_requests_total{status}`.
const ALLOWED: &str = "allowed";
const LIMITED: &str = "limited";
/// Would have been, by a limit that only reports.
const REPORTED: &str = "reported";
const FAILED: &str = "failed";
const UNAVAILABLE: &str = "unavailable";

impl Gate {
    /// Takes one of each limit that the request falls under at this stage, or none. What is left is noted in `standing`, which is made where there is
    /// anything to note.
    ///
    /// # Errors
    /// What is to be done with the request instead.
    pub(super) async fn count(
        &self,
        site: &Site,
        stage: Stage,
        question: &Question<'_>,
        source: Source<'_>,
        standing: &mut Option<Box<Standing>>,
    ) -> Result<(), Verdict> {
        let mut due = site.rules.limits_due(stage, question, source);
        if due.is_empty() {
            return Ok(());
        }
        if let Some(limit) = self.take_out_failed(&mut due) {
            standing.get_or_insert_with(|| Box::new(Standing::new(question.now))).fail(&limit);
            return Err(Verdict::Refuse);
        }
        let asks: Vec<Ask<'_>> = due.iter().filter_map(ask).collect();
        if asks.is_empty() {
            return Ok(());
        }
        let taken = match self.counters.try_take(&asks) {
            Some(taken) => Ok(taken),
            None => self.counters.take(&asks).await,
        };
        match taken {
            Ok(taken) => {
                let standing = standing.get_or_insert_with(|| Box::new(Standing::new(question.now)));
                self.note(&due, taken, standing)
            }
            Err(unavailable) => {
                for ask in &asks {
                    self.metrics.limits.counted(ask.limit, UNAVAILABLE);
                }
                if asks.iter().all(|ask| ask.reports_only) {
                    return Ok(());
                }
                tracing::warn!(store = unavailable.store, error = %unavailable, "cannot count a request");
                Err(Verdict::Unavailable { store: unavailable.store })
            }
        }
    }

    /// What is left has a key. Answers a limit that may refuse and whose key cannot be worked out.
    fn take_out_failed(&self, due: &mut Vec<Due>) -> Option<Arc<str>> {
        let mut failed = None;
        due.retain(|Due { quota, key, reports_only }| {
            if key.is_none() {
                self.metrics.limits.counted(&quota.limit, FAILED);
                if !reports_only {
                    failed.get_or_insert_with(|| Arc::clone(&quota.limit));
                }
            }
            key.is_some()
        });
        failed
    }

    /// `due`: as they were asked.
    fn note(&self, due: &[Due], taken: Taken, standing: &mut Standing) -> Result<(), Verdict> {
        let Taken { allowances, refused } = taken;
        if let Some((by, due)) = refused.and_then(|by| Some((by, due.get(by.ask)?))) {
            let rate = allowances.get(by.ask).and_then(|allowance| allowance.refused).map(|refused| refused.rate);
            if let Some(rate) = rate.or_else(|| due.quota.rates.iter().next()) {
                let limit = Arc::clone(&due.quota.limit);
                standing.refuse(Refusal { limit, rate, retry_after: by.retry_after });
            }
        }
        for (Due { quota, reports_only, .. }, allowance) in due.iter().zip(allowances) {
            let status = match (allowance.is_granted(), *reports_only) {
                (false, false) => Some(LIMITED),
                (false, true) => Some(REPORTED),
                // Another one stood in the way: this one counted nothing.
                (true, false) if refused.is_some() => None,
                (true, _) => Some(ALLOWED),
            };
            if let Some(status) = status {
                self.metrics.limits.counted(&quota.limit, status);
            }
            if !reports_only {
                standing.add(Arc::clone(quota), allowance);
            } else if status == Some(REPORTED) {
                standing.report(&quota.limit);
            }
        }
        match refused {
            None => Ok(()),
            Some(by) => Err(Verdict::SlowDown { retry_after: by.retry_after }),
        }
    }
}

/// `None`: it has no key.
fn ask(due: &Due) -> Option<Ask<'_>> {
    let Due { quota, key, reports_only } = due;
    Some(Ask { limit: &quota.limit, rates: &quota.rates, key: CounterKey((*key)?), reports_only: *reports_only })
}
