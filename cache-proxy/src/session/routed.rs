//! Commands on keys with a route: answered from what is kept, or by an errand.
//!
//! A session does no errand itself. It leaves one in [`Session::errand`] and
//! stops; the server does it and gives the outcome to [`Session::resume`], and
//! the session goes on where it was. So a connection's answers stay in order,
//! and keys without a route never meet any of this.
//!
//! Keys in answers are as the client wrote them, though items are kept under
//! canonical ones.

mod answers;

use std::collections::VecDeque;
use std::sync::Arc;

use super::classic::GetManner;
use super::store::StoreCommand;
use super::{Session, State, Step, expiry};
use crate::origins::key::{OriginKey, has_route};
use crate::origins::write::{CellWrite, WriteOutcome};
use crate::origins::{Errand, ErrandOutcome, Fetched, Lookup, Origins};
use crate::protocol::answer;
use crate::protocol::command::{Command, StoreVerb};
use crate::protocol::meta::{MetaLine, MetaVerb};
use crate::protocol::output::Output;
use crate::protocol::tokens::{Words, next_token};
use answers::{ClassicReply, Shown};

/// Keys of one errand, at most.
const ERRAND_KEY_COUNT_MAX: usize = 100;

const PHOTO_WRITE: &str = "CLIENT_ERROR photos are read here; POST and DELETE them over HTTP";
const NO_OWN_CAS: &str = "CLIENT_ERROR the cas of a cell follows from its value: no E for keys with a route";
const NO_STALE: &str =
    "CLIENT_ERROR cells are written or deleted, not marked stale: no I or x for keys with a route";

const NO_FILL: &str = "CLIENT_ERROR keys with a route are filled from their origin: no lease-set";

/// What a session knows of errands.
#[derive(Debug, Default)]
pub(super) struct Routed {
    /// To be done before the session goes on.
    errand: Option<Errand>,
    /// What came of the last one.
    written: Option<WriteOutcome>,
    fetched: VecDeque<(OriginKey, Fetched)>,
    /// What went wrong with a key of the get that is being answered.
    failure: Option<Arc<str>>,
}

/// An answer that waits for an errand.
#[derive(Debug)]
pub(super) enum Reply {
    Classic(ClassicReply),
    /// The line, without a value.
    Meta(Vec<u8>),
}

/// Whether a key of a get was answered.
enum KeyStep {
    Done,
    Wait,
}

impl Session {
    /// The errand that the session waits for.
    pub(crate) fn take_errand(&mut self) -> Option<Errand> {
        self.routed.errand.take()
    }

    pub(super) fn has_errand(&self) -> bool {
        self.routed.errand.is_some()
    }

    /// Takes what came of the errand.
    pub(crate) fn resume(&mut self, outcome: ErrandOutcome) {
        match outcome {
            ErrandOutcome::Read(fetched) => self.routed.fetched = fetched.into(),
            ErrandOutcome::Write(written) => self.routed.written = Some(written),
        }
    }

    /// Answers a command, or sees to it that it will be, if it has keys with a route.
    pub(super) fn step_routed(
        &mut self,
        command: &Command<'_>,
        (line_bytes, end): (usize, usize),
        output: &mut Output,
        now: u32,
    ) -> Option<Step> {
        let origins = Arc::clone(self.shared.origins.as_ref()?);
        match *command {
            Command::Get { keys, with_cas, leases, exptime } if Words(keys).any(has_route) => {
                let get = GetManner { with_cas, leases, expires_at: exptime.map(|at| expiry(at, now)) };
                return Some(self.step_routed_keys(get, keys, (line_bytes, end), output, now));
            }
            Command::Touch { key, exptime, no_reply } if has_route(key) => {
                let write = CellWrite::Touch { expires_at: expiry(exptime, now) };
                self.write_classic(&origins, key, write, ClassicReply::Touch { no_reply }, output);
            }
            Command::Delete { key, no_reply, .. } if has_route(key) => {
                let write = CellWrite::Delete { compare: None };
                self.write_classic(&origins, key, write, ClassicReply::Delete { no_reply }, output);
            }
            Command::Arithmetic { key, delta, increment, no_reply } if has_route(key) => {
                let write = CellWrite::Arithmetic {
                    delta,
                    increment,
                    compare: None,
                    initial: None,
                    expires_at: None,
                };
                self.write_classic(&origins, key, write, ClassicReply::Arithmetic { no_reply }, output);
            }
            Command::Meta(ref line) if has_route(line.key.as_slice()) && line.verb != MetaVerb::Debug => {
                self.run_routed_meta(&origins, line, output, now);
            }
            _ => return None,
        }
        Some(Step::Done(end))
    }

    fn write_classic(
        &mut self,
        origins: &Origins,
        key: &[u8],
        write: CellWrite,
        reply: ClassicReply,
        output: &mut Output,
    ) {
        if let Err(refusal) = self.begin_write(origins, key, write, Reply::Classic(reply)) {
            put_refusal(output, &refusal, reply.is_no_reply());
        }
    }

    /// Has `write` done, and `reply` answered after it.
    fn begin_write(
        &mut self,
        origins: &Origins,
        key: &[u8],
        write: CellWrite,
        reply: Reply,
    ) -> Result<(), Arc<str>> {
        match origins.parse(key) {
            Ok(OriginKey::Cell(cell)) => {
                self.routed.errand = Some(Errand::Write(cell, write));
                self.state = State::Waiting(reply);
                Ok(())
            }
            Ok(OriginKey::Photo(_)) => Err(PHOTO_WRITE.into()),
            Err(bad) => Err(format!("CLIENT_ERROR {bad}").into()),
        }
    }

    /// Has a complete `value` written if its key has a route; whether it has one.
    pub(super) fn store_routed(
        &mut self,
        store: StoreCommand<'_>,
        value: &[u8],
        output: &mut Output,
        now: u32,
    ) -> bool {
        let Some(origins) = self.shared.origins.clone().filter(|_| has_route(store.key())) else {
            return false;
        };
        let value = bytes::Bytes::copy_from_slice(value);
        let (write, reply) = match store {
            StoreCommand::Classic(line) => {
                let reply = Reply::Classic(ClassicReply::Store { no_reply: line.no_reply });
                let write = match line.verb {
                    StoreVerb::LeaseSet => Err(NO_FILL),
                    verb => Ok(CellWrite::Store {
                        verb,
                        value,
                        client_flags: line.client_flags,
                        expires_at: expiry(line.exptime, now),
                        compare: (verb == StoreVerb::Cas).then_some(line.unique),
                        vivify: false,
                    }),
                };
                (write, reply)
            }
            StoreCommand::Meta(line) => (meta_store(line, value, now), Reply::Meta(owned_line(b's', line))),
        };
        let begun = match write {
            Ok(write) => self.begin_write(&origins, store.key(), write, reply),
            Err(refusal) => Err(refusal.into()),
        };
        if let Err(refusal) = begun {
            put_refusal(output, &refusal, store.is_no_reply());
        }
        true
    }

    fn run_routed_meta(&mut self, origins: &Origins, line: &MetaLine<'_>, output: &mut Output, now: u32) {
        let flags = &line.flags;
        let write = match line.verb {
            _ if flags.new_cas.is_some() => Err(NO_OWN_CAS),
            MetaVerb::Delete if flags.invalidate || flags.remove_value => Err(NO_STALE),
            MetaVerb::Delete => Ok(CellWrite::Delete { compare: flags.compare }),
            MetaVerb::Arithmetic => Ok(CellWrite::Arithmetic {
                delta: flags.delta.unwrap_or(1),
                increment: !matches!(flags.mode, b'D' | b'd' | b'-'),
                compare: flags.compare,
                initial: flags.vivify.map(|exptime| (flags.initial, expiry(exptime, now))),
                expires_at: flags.exptime.map(|exptime| expiry(exptime, now)),
            }),
            _ => match flags.exptime {
                Some(exptime) => Ok(CellWrite::Touch { expires_at: expiry(exptime, now) }),
                None => return self.read_meta(origins, line, output, now),
            },
        };
        let verb = match line.verb {
            MetaVerb::Delete => b'd',
            MetaVerb::Arithmetic => b'a',
            _ => b'g',
        };
        let begun = match write {
            Ok(write) => {
                self.begin_write(origins, line.key.as_slice(), write, Reply::Meta(owned_line(verb, line)))
            }
            Err(refusal) => Err(refusal.into()),
        };
        if let Err(refusal) = begun {
            put_refusal(output, &refusal, false);
        }
    }

    fn read_meta(&mut self, origins: &Origins, line: &MetaLine<'_>, output: &mut Output, now: u32) {
        let key = match origins.parse(line.key.as_slice()) {
            Ok(key) => key,
            Err(bad) => return put_refusal(output, &format!("CLIENT_ERROR {bad}"), false),
        };
        match origins.look_up(&key, now) {
            Lookup::Hit(mut slot) => {
                if let Some(item) = slot.item() {
                    answers::put_meta_value(output, line, &Shown::item(item), now);
                }
                if !line.flags.no_access {
                    slot.access();
                }
                let counts = slot.counts();
                counts.cmd_get += 1;
                counts.get_hits += 1;
            }
            Lookup::Absent => answers::put_meta_absent(output, line),
            Lookup::Unknown => {
                self.routed.errand = Some(Errand::Read(vec![key.clone()]));
                self.state = State::Waiting(Reply::Meta(owned_line(b'g', line)));
            }
        }
    }

    /// Answers what waited for an errand.
    pub(super) fn answer_waiting(&mut self, reply: &Reply, output: &mut Output, now: u32) {
        let written = self.routed.written.take();
        let fetched = self.routed.fetched.pop_front();
        match (reply, written, fetched) {
            (Reply::Classic(reply), Some(written), _) => reply.put(output, &written),
            (Reply::Meta(line), Some(written), _) => answers::put_meta_written(output, line, &written, now),
            (Reply::Meta(line), None, Some((_, fetched))) => {
                answers::put_meta_fetched(output, line, &fetched, now);
            }
            _ => unreachable!("every errand has an outcome of its kind"),
        }
    }

    /// Answers the keys of a get, with or without a route; stops where the output
    /// is full, or an errand is to be done.
    pub(super) fn step_routed_keys(
        &mut self,
        get: GetManner,
        mut keys: &[u8],
        (line_bytes, end): (usize, usize),
        output: &mut Output,
        now: u32,
    ) -> Step {
        let Some(origins) = self.shared.origins.clone() else { return Step::Close };
        while let Some((key, rest)) = next_token(keys) {
            let is_full = output.len() >= self.shared.options.output_bytes_max;
            let step = match has_route(key) {
                _ if is_full => KeyStep::Wait,
                true => self.get_routed(&origins, get, key, rest, output, now),
                false => {
                    self.get(get, key, output, now);
                    KeyStep::Done
                }
            };
            if let KeyStep::Wait = step {
                self.state = State::RoutedKeys(get);
                return Step::Done(line_bytes - keys.len());
            }
            keys = rest;
        }
        self.routed.fetched.clear();
        match self.routed.failure.take() {
            Some(failure) => put_refusal(output, &failure, false),
            None => output.put(answer::END.as_bytes()),
        }
        self.state = State::Line;
        Step::Done(end)
    }

    fn get_routed(
        &mut self,
        origins: &Origins,
        get: GetManner,
        written_key: &[u8],
        rest: &[u8],
        output: &mut Output,
        now: u32,
    ) -> KeyStep {
        let key = match origins.parse(written_key) {
            Ok(key) => key,
            Err(bad) => {
                self.routed.failure.get_or_insert_with(|| format!("CLIENT_ERROR {bad}").into());
                return KeyStep::Done;
            }
        };
        if let Some(expires_at) = get.expires_at {
            return self.touch_and_get(key, get, expires_at, written_key, output);
        }
        let mut is_alone = false;
        if let Some(place) = self.routed.fetched.iter().position(|(fetched, _)| *fetched == key) {
            match self.routed.fetched.remove(place).map(|(_, fetched)| fetched) {
                Some(Fetched::Value(value, cas)) => {
                    answers::put_value(output, written_key, &Shown::value(&value, cas), get.with_cas);
                }
                Some(Fetched::Failed(failure)) => {
                    self.routed.failure.get_or_insert(failure);
                }
                Some(Fetched::Later) => is_alone = true,
                Some(Fetched::Absent) | None => {}
            }
            if !is_alone {
                origins.count_miss(&key, now);
                return KeyStep::Done;
            }
        }
        match origins.look_up(&key, now) {
            Lookup::Hit(mut slot) => {
                if let Some(item) = slot.get() {
                    answers::put_value(output, written_key, &Shown::item(item), get.with_cas);
                }
                KeyStep::Done
            }
            Lookup::Absent => {
                origins.count_miss(&key, now);
                KeyStep::Done
            }
            Lookup::Unknown => {
                let mut keys = vec![key.clone()];
                if !is_alone {
                    look_ahead(origins, rest, &mut keys, now);
                }
                self.routed.errand = Some(Errand::Read(keys));
                KeyStep::Wait
            }
        }
    }

    fn touch_and_get(
        &mut self,
        key: OriginKey,
        get: GetManner,
        expires_at: u32,
        written_key: &[u8],
        output: &mut Output,
    ) -> KeyStep {
        match (self.routed.written.take(), key) {
            (Some(WriteOutcome::Done(value, cas)), _) => {
                answers::put_value(output, written_key, &Shown::value(&value, cas), get.with_cas);
            }
            (Some(WriteOutcome::Failed(failure)), _) => {
                self.routed.failure.get_or_insert(failure);
            }
            (Some(_), _) => {}
            (None, OriginKey::Cell(cell)) => {
                self.routed.errand = Some(Errand::Write(cell, CellWrite::Touch { expires_at }));
                return KeyStep::Wait;
            }
            (None, OriginKey::Photo(_)) => {
                self.routed.failure.get_or_insert_with(|| PHOTO_WRITE.into());
            }
        }
        KeyStep::Done
    }
}

/// Adds to `keys` those of the rest of a get that are to be read, too.
fn look_ahead(origins: &Origins, mut rest: &[u8], keys: &mut Vec<OriginKey>, now: u32) {
    while let Some((word, after)) = next_token(rest) {
        rest = after;
        if keys.len() >= ERRAND_KEY_COUNT_MAX {
            return;
        }
        if has_route(word)
            && let Ok(key) = origins.parse(word)
            && matches!(origins.look_up(&key, now), Lookup::Unknown)
        {
            keys.push(key);
        }
    }
}

/// What an ms writes.
fn meta_store(line: &MetaLine<'_>, value: bytes::Bytes, now: u32) -> Result<CellWrite, &'static str> {
    let flags = &line.flags;
    if flags.new_cas.is_some() {
        return Err(NO_OWN_CAS);
    }
    if flags.invalidate {
        return Err(NO_STALE);
    }
    let verb = match flags.mode {
        b'E' => StoreVerb::Add,
        b'A' => StoreVerb::Append,
        b'P' => StoreVerb::Prepend,
        b'R' => StoreVerb::Replace,
        _ if flags.compare.is_some() => StoreVerb::Cas,
        _ => StoreVerb::Set,
    };
    let joins = matches!(verb, StoreVerb::Append | StoreVerb::Prepend);
    let exptime = if joins { flags.vivify } else { None }.or(flags.exptime).unwrap_or(0);
    Ok(CellWrite::Store {
        verb,
        value,
        client_flags: flags.client_flags,
        expires_at: expiry(exptime, now),
        compare: flags.compare,
        vivify: flags.vivify.is_some(),
    })
}

/// The line again, to be parsed when its outcome is there.
fn owned_line(verb: u8, line: &MetaLine<'_>) -> Vec<u8> {
    let mut text = vec![b'm', verb, b' '];
    text.extend_from_slice(line.written_key());
    if line.verb == MetaVerb::Set {
        text.extend_from_slice(format!(" {}", line.value_bytes).as_bytes());
    }
    text.extend_from_slice(line.words().0);
    text
}

fn put_refusal(output: &mut Output, refusal: &str, no_reply: bool) {
    if !no_reply {
        output.put(refusal.as_bytes());
        output.put(b"\r\n");
    }
}
