//! What limits are counted in (`ports::Counters`): [`memory`], or a Redis that nodes share ([`redis`]), by the arithmetic of `core::limit`. Asked by `gate`.

mod memory;
mod redis;

pub(super) use self::{memory::MemoryCounters, redis::RedisCounters};
