//! The `hayloft_cache_*` metrics.

use std::sync::atomic::Ordering;

use super::Cache;

/// Prefixes with metrics of their own: those asked for most.
const PREFIX_COUNT_MAX: usize = 20;

impl Cache {
    /// Brings the `hayloft_cache_*` metrics up to date: to be called when they
    /// are about to be read. The table counts for itself, at no cost a command.
    pub fn publish_metrics(&self) {
        if let Some(origins) = &self.shared.origins {
            origins.publish_metrics();
        }
        let table = self.statistics();
        let counts = &table.counts;
        for (name, count) in [
            ("get", counts.cmd_get),
            ("set", counts.cmd_set),
            ("touch", counts.cmd_touch),
            ("delete", counts.delete_hits + counts.delete_misses),
            ("incr", counts.incr_hits + counts.incr_misses),
            ("decr", counts.decr_hits + counts.decr_misses),
            ("flush_all", self.shared.flush_count.load(Ordering::Relaxed)),
        ] {
            metrics::counter!("hayloft_cache_commands_total", "command" => name).absolute(count);
        }
        metrics::counter!("hayloft_cache_hits_total").absolute(counts.get_hits);
        metrics::counter!("hayloft_cache_misses_total").absolute(counts.get_misses);
        for (event, count) in [
            ("token", counts.lease_tokens),
            ("wait", counts.lease_waits),
            ("stale_hit", counts.lease_stale_hits),
            ("fill", counts.lease_fills),
            ("refusal", counts.lease_refusals),
        ] {
            metrics::counter!("hayloft_cache_leases_total", "event" => event).absolute(count);
        }
        metrics::counter!("hayloft_cache_evictions_total").absolute(counts.evictions);
        metrics::counter!("hayloft_cache_expired_total").absolute(counts.reclaimed);
        for prefix in self.shared.sampled.prefixes(PREFIX_COUNT_MAX) {
            let name = prefix.prefix.escape_ascii().to_string();
            let count = |result, count| {
                metrics::counter!("hayloft_cache_prefix_gets_total", "prefix" => name.clone(), "result" => result)
                    .absolute(count);
            };
            count("hit", prefix.hits);
            count("miss", prefix.gets - prefix.hits);
        }
        let connections = &self.shared.connections;
        let read_bytes = connections.read_bytes.load(Ordering::Relaxed);
        let written_bytes = connections.written_bytes.load(Ordering::Relaxed);
        metrics::counter!("hayloft_cache_read_bytes_total").absolute(read_bytes);
        metrics::counter!("hayloft_cache_written_bytes_total").absolute(written_bytes);
        #[expect(clippy::cast_precision_loss, reason = "gauges are floating point")]
        for (name, value) in [
            ("hayloft_cache_items", table.item_count),
            ("hayloft_cache_memory_bytes", table.memory_bytes),
            ("hayloft_cache_memory_max_bytes", table.memory_bytes_max),
            ("hayloft_cache_oldest_age_seconds", table.oldest_age_s),
            ("hayloft_cache_eviction_age_seconds", counts.evicted_time),
        ] {
            metrics::gauge!(name).set(value as f64);
        }
    }
}
