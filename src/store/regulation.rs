//! Regulation of sign-ins that admits everybody: the seam is `ports::Regulation`, and what counts and bars plugs in here.

use async_trait::async_trait;

use crate::ports::{Barred, Regulation, Try};

pub(super) struct NoRegulation;

#[async_trait]
impl Regulation for NoRegulation {
    async fn admit(&self, _: Try<'_>) -> Result<(), Barred> {
        Ok(())
    }
    fn bars(&self, _: Try<'_>) -> bool {
        false
    }
    async fn settled(&self, _: Try<'_>, _was_right: bool) {}
}
