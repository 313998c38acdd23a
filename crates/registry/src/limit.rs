//! Rate limits: a token bucket per client address. Knows nothing of what is asked for.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Buckets that fill at one rate.
pub(crate) struct Buckets {
    rate: f64,
    burst: f64,
    known: Mutex<HashMap<IpAddr, Bucket>>,
}

#[derive(Clone, Copy)]
struct Bucket {
    tokens: f64,
    at: Instant,
}

// LIMIT: addresses remembered; when there are more, those that may do all again are forgotten.
const ADDRESSES: usize = 65_536;

impl Buckets {
    pub(crate) fn new(rate: f64, burst: f64) -> Self {
        Self { rate, burst: burst.max(1.0), known: Mutex::default() }
    }

    /// Takes a token, or says when there will be one.
    pub(crate) fn take(&self, address: IpAddr, now: Instant) -> Result<(), Duration> {
        let mut buckets = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= ADDRESSES {
            buckets.retain(|_, bucket| self.filled(bucket, now) < self.burst);
        }
        if buckets.len() >= ADDRESSES {
            buckets.clear();
        }
        let fresh = Bucket { tokens: self.burst, at: now };
        let bucket = buckets.entry(network(address)).or_insert(fresh);
        let tokens = self.filled(bucket, now);
        if tokens < 1.0 {
            return Err(Duration::from_secs_f64((1.0 - tokens) / self.rate));
        }
        *bucket = Bucket { tokens: tokens - 1.0, at: now };
        Ok(())
    }

    fn filled(&self, bucket: &Bucket, now: Instant) -> f64 {
        let since = now.saturating_duration_since(bucket.at).as_secs_f64();
        since.mul_add(self.rate, bucket.tokens).min(self.burst)
    }
}

/// One client has a whole IPv6 network of 64 bits.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            IpAddr::V6(std::net::Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)))
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests;
