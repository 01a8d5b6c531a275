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
        let due = site.rules.limits_due(stage, question, source);
        if due.is_empty() {
            return Ok(());
        }
        let (asks, failed) = self.asks(&due);
        if let Some(limit) = failed {
            standing.get_or_insert_with(|| Box::new(Standing::new(question.now))).fail(limit);
            return Err(Verdict::Refuse);
        }
        if asks.is_empty() {
            return Ok(());
        }
        let plain: Vec<Ask<'_>> = asks.iter().map(|(ask, _)| *ask).collect();
        let taken = match self.counters.try_take(&plain) {
            Some(taken) => Ok(taken),
            None => self.counters.take(&plain).await,
        };
        match taken {
            Ok(taken) => {
                let standing = standing.get_or_insert_with(|| Box::new(Standing::new(question.now)));
                self.note(&asks, taken, standing)
            }
            Err(unavailable) => {
                for (ask, _) in &asks {
                    self.metrics.limits.counted(ask.limit, UNAVAILABLE);
                }
                if plain.iter().all(|ask| ask.reports_only) {
                    return Ok(());
                }
                tracing::warn!(store = unavailable.store, error = %unavailable, "cannot count a request");
                Err(Verdict::Unavailable { store: unavailable.store })
            }
        }
    }

    /// The second value: a limit that may refuse and whose key cannot be worked out.
    fn asks<'d>(&self, due: &'d [Due]) -> (Vec<(Ask<'d>, &'d Due)>, Option<&'d Arc<str>>) {
        let mut asks = Vec::with_capacity(due.len());
        let mut failed = None;
        for due in due {
            let Due { quota, key, reports_only } = due;
            match key {
                Some(key) => {
                    let (limit, rates, key) = (&*quota.limit, &quota.rates, CounterKey(*key));
                    asks.push((Ask { limit, rates, key, reports_only: *reports_only }, due));
                }
                None => {
                    self.metrics.limits.counted(&quota.limit, FAILED);
                    failed = failed.or((!reports_only).then_some(&quota.limit));
                }
            }
        }
        (asks, failed)
    }

    fn note(&self, asks: &[(Ask<'_>, &Due)], taken: Taken, standing: &mut Standing) -> Result<(), Verdict> {
        let Taken { allowances, refused } = taken;
        if let Some((by, (_, due))) = refused.and_then(|by| Some((by, asks.get(by.ask)?))) {
            let rate = allowances.get(by.ask).and_then(|allowance| allowance.refused).map(|refused| refused.rate);
            let rate = rate.or_else(|| due.quota.rates.iter().next());
            if let Some(rate) = rate {
                let limit = Arc::clone(&due.quota.limit);
                standing.refuse(Refusal { limit, rate, retry_after: by.retry_after });
            }
        }
        for ((ask, due), allowance) in asks.iter().zip(allowances) {
            let status = match (allowance.is_granted(), ask.reports_only) {
                (false, false) => LIMITED,
                (false, true) => REPORTED,
                // Another one stood in the way: this one counted nothing.
                (true, false) if refused.is_some() => {
                    standing.add(Arc::clone(&due.quota), allowance);
                    continue;
                }
                (true, _) => ALLOWED,
            };
            self.metrics.limits.counted(ask.limit, status);
            if !ask.reports_only {
                standing.add(Arc::clone(&due.quota), allowance);
            } else if status == REPORTED {
                standing.report(&due.quota.limit);
            }
        }
        match refused {
            None => Ok(()),
            Some(by) => Err(Verdict::SlowDown { retry_after: by.retry_after }),
        }
    }
}
