//! What `stats` answers: memcached's names, for what there is here.
//!
//! There are no slabs: `stats slabs` has no class, and `stats items` shows all
//! items as class 1, which is how memcached's tools find them.

use std::fmt::Display;
use std::sync::atomic::Ordering;

use super::Session;
use super::classic::VERSION;
use crate::connections::{Peer, Phase};
use crate::prefixes::PrefixCounts;
use crate::protocol::answer;
use crate::protocol::output::Output;

impl Session {
    /// Answers `stats`, or one of its subcommands.
    pub(super) fn stats(
        &self,
        subcommand: Option<&[u8]>,
        mode: Option<&[u8]>,
        output: &mut Output,
        now: u32,
    ) {
        match subcommand {
            None => self.stats_general(output, now),
            Some(b"reset") => {
                self.shared.table.reset_statistics();
                let shared = &self.shared;
                let counts = [&shared.flush_count, &shared.meta_count];
                let counts = counts.into_iter().chain([&shared.too_large_count, &shared.no_memory_count]);
                counts.for_each(|count| count.store(0, Ordering::Relaxed));
                shared.prefixes.reset();
                return output.put(answer::RESET.as_bytes());
            }
            Some(b"detail") => return self.stats_detail(mode, output),
            Some(b"settings") => self.stats_settings(output),
            Some(b"items") => self.stats_items(output, now),
            Some(b"slabs") => {
                put(output, "active_slabs", 0);
                put(output, "total_malloced", self.shared.table.statistics(now).memory_bytes);
            }
            Some(b"sizes") => put(output, "sizes_status", "disabled"),
            Some(b"conns") => self.stats_conns(output, now),
            Some(_) => return output.put(answer::ERROR.as_bytes()),
        }
        output.put(answer::END.as_bytes());
    }

    fn stats_general(&self, output: &mut Output, now: u32) {
        let shared = &self.shared;
        let table = shared.table.statistics(now);
        let counts = table.counts;
        let connections = &shared.connections;
        put(output, "pid", std::process::id());
        put(output, "uptime", now.saturating_sub(shared.started_at));
        put(output, "time", now);
        put(output, "version", VERSION);
        put(output, "pointer_size", usize::BITS);
        put(output, "max_connections", shared.options.connection_count_max);
        put(output, "curr_connections", connections.open_count());
        put(output, "total_connections", connections.accepted_count());
        put(output, "cmd_get", counts.cmd_get);
        put(output, "cmd_set", counts.cmd_set);
        put(output, "cmd_flush", shared.flush_count.load(Ordering::Relaxed));
        put(output, "cmd_touch", counts.cmd_touch);
        put(output, "cmd_meta", shared.meta_count.load(Ordering::Relaxed));
        put(output, "get_hits", counts.get_hits);
        put(output, "get_misses", counts.get_misses);
        put(output, "get_expired", counts.get_expired);
        put(output, "get_flushed", counts.get_flushed);
        put(output, "delete_misses", counts.delete_misses);
        put(output, "delete_hits", counts.delete_hits);
        put(output, "incr_misses", counts.incr_misses);
        put(output, "incr_hits", counts.incr_hits);
        put(output, "decr_misses", counts.decr_misses);
        put(output, "decr_hits", counts.decr_hits);
        put(output, "cas_misses", counts.cas_misses);
        put(output, "cas_hits", counts.cas_hits);
        put(output, "cas_badval", counts.cas_badval);
        put(output, "touch_hits", counts.touch_hits);
        put(output, "touch_misses", counts.touch_misses);
        put(output, "lease_tokens", counts.lease_tokens);
        put(output, "lease_waits", counts.lease_waits);
        put(output, "lease_stale_hits", counts.lease_stale_hits);
        put(output, "lease_fills", counts.lease_fills);
        put(output, "lease_refusals", counts.lease_refusals);
        put(output, "store_too_large", shared.too_large_count.load(Ordering::Relaxed));
        put(output, "store_no_memory", shared.no_memory_count.load(Ordering::Relaxed));
        put(output, "auth_cmds", shared.auth_count.load(Ordering::Relaxed));
        put(output, "auth_errors", shared.auth_error_count.load(Ordering::Relaxed));
        put(output, "idle_kicks", connections.idle_kick_count.load(Ordering::Relaxed));
        put(output, "bytes_read", connections.read_bytes.load(Ordering::Relaxed));
        put(output, "bytes_written", connections.written_bytes.load(Ordering::Relaxed));
        put(output, "limit_maxbytes", table.memory_bytes_max);
        put(output, "accepting_conns", 1);
        put(output, "threads", std::thread::available_parallelism().map_or(1, usize::from));
        put(output, "conn_yields", 0);
        put(output, "hash_is_expanding", 0);
        put(output, "lru_crawler_running", 0);
        put(output, "log_watcher_skipped", shared.watchers.skipped_count.load(Ordering::Relaxed));
        put(output, "log_watcher_sent", shared.watchers.sent_count.load(Ordering::Relaxed));
        put(output, "log_watchers", shared.watchers.count());
        put(output, "bytes", table.memory_bytes);
        put(output, "curr_items", table.item_count);
        put(output, "total_items", counts.total_items);
        put(output, "expired_unfetched", counts.expired_unfetched);
        put(output, "evicted_unfetched", counts.evicted_unfetched);
        put(output, "evicted_active", 0);
        put(output, "evictions", counts.evictions);
        put(output, "reclaimed", counts.reclaimed);
        put(output, "crawler_reclaimed", counts.crawler_reclaimed);
    }

    fn stats_settings(&self, output: &mut Output) {
        let options = &self.shared.options;
        put(output, "maxbytes", self.shared.table.statistics(0).memory_bytes_max);
        put(output, "maxconns", options.connection_count_max);
        let listeners = self.shared.connections.list();
        let port = |kind: fn(&Peer) -> Option<u16>| {
            listeners
                .iter()
                .filter(|(_, listener)| listener.phase() == Phase::Listening)
                .find_map(|(_, listener)| kind(&listener.peer))
                .unwrap_or(0)
        };
        let tcp_port = |peer: &Peer| match peer {
            Peer::Tcp { local, .. } => Some(local.port()),
            _ => None,
        };
        let udp_port = |peer: &Peer| match peer {
            Peer::Udp { local } => Some(local.port()),
            _ => None,
        };
        put(output, "tcpport", port(tcp_port));
        put(output, "udpport", port(udp_port));
        put(output, "verbosity", self.shared.verbosity.load(Ordering::Relaxed));
        put(output, "evictions", "on");
        put(output, "domain_socket", "NULL");
        put(output, "shutdown_command", yes(options.shutdown_command));
        put(output, "num_threads", std::thread::available_parallelism().map_or(1, usize::from));
        put(output, "stat_key_prefix", ":");
        put(output, "detail_enabled", yes(self.shared.prefixes.is_on()));
        put(output, "cas_enabled", "yes");
        put(output, "auth_enabled_sasl", "no");
        put(output, "auth_enabled_ascii", yes(!options.credentials.is_empty()));
        put(output, "item_size_max", options.item_bytes_max);
        put(output, "maxconns_fast", "yes");
        put(output, "slab_reassign", "no");
        put(output, "slab_automove", 0);
        put(output, "lru_crawler", "no");
        put(output, "flush_enabled", yes(options.flush_enabled));
        put(output, "dump_enabled", yes(options.dump_enabled));
        put(output, "hash_algorithm", "xxh3");
        put(output, "lru_maintainer_thread", "no");
        put(output, "lru_segmented", "no");
        put(output, "idle_timeout", options.idle_timeout.map_or(0, |timeout| timeout.as_secs()));
        put(output, "track_sizes", "no");
        put(output, "ssl_enabled", yes(self.shared.certificates.lock().is_some()));
    }

    fn stats_items(&self, output: &mut Output, now: u32) {
        let table = self.shared.table.statistics(now);
        let counts = table.counts;
        if table.item_count == 0 {
            return;
        }
        put(output, "items:1:number", table.item_count);
        put(output, "items:1:age", table.oldest_age_s);
        put(output, "items:1:mem_requested", table.memory_bytes);
        put(output, "items:1:evicted", counts.evictions);
        put(output, "items:1:evicted_nonzero", counts.evicted_nonzero);
        put(output, "items:1:evicted_time", counts.evicted_time);
        put(output, "items:1:outofmemory", self.shared.no_memory_count.load(Ordering::Relaxed));
        put(output, "items:1:tailrepairs", 0);
        put(output, "items:1:reclaimed", counts.reclaimed);
        put(output, "items:1:expired_unfetched", counts.expired_unfetched);
        put(output, "items:1:evicted_unfetched", counts.evicted_unfetched);
        put(output, "items:1:crawler_reclaimed", counts.crawler_reclaimed);
    }

    fn stats_detail(&self, mode: Option<&[u8]>, output: &mut Output) {
        let prefixes = &self.shared.prefixes;
        if mode != Some(b"dump") {
            prefixes.turn(mode == Some(b"on"));
            return output.put(answer::OK.as_bytes());
        }
        for (prefix, counts) in prefixes.list() {
            output.put(b"PREFIX ");
            output.put(&prefix);
            let PrefixCounts { get, hit, set, delete } = counts;
            output.put(format!(" get {get} hit {hit} set {set} del {delete}\r\n").as_bytes());
        }
        output.put(answer::END.as_bytes());
    }

    fn stats_conns(&self, output: &mut Output, now: u32) {
        for (number, connection) in self.shared.connections.list() {
            put(output, &format!("{number}:addr"), &connection.peer);
            if connection.phase() != Phase::Listening {
                put(output, &format!("{number}:listen_addr"), connection.peer.local());
            }
            put(output, &format!("{number}:state"), connection.phase().name());
            let idle_s = now.saturating_sub(connection.active_at.load(Ordering::Relaxed));
            put(output, &format!("{number}:secs_since_last_cmd"), idle_s);
        }
    }
}

fn yes(is_so: bool) -> &'static str {
    if is_so { "yes" } else { "no" }
}

fn put(output: &mut Output, name: &str, value: impl Display) {
    output.put(format!("STAT {name} {value}\r\n").as_bytes());
}
