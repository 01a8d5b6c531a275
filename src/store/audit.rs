//! The audit sink: one log line an event, target `postern::audit`, and a count. Never holds a secret.

use std::sync::Arc;

use crate::{
    observe::metrics::Metrics,
    ports::{AuditEvent, AuditSink},
};

pub(super) struct LogAudit {
    metrics: Arc<Metrics>,
}

impl LogAudit {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        Self { metrics }
    }
}

impl AuditSink for LogAudit {
    fn record(&self, event: AuditEvent) {
        self.metrics.audit_event(event.event);
        tracing::info!(
            target: "postern::audit",
            event = event.event,
            user = event.user.as_deref(),
            address = event.address.map(tracing::field::display),
            request_id = event.request_id.as_deref(),
            detail = event.detail,
            "audit"
        );
    }
}
