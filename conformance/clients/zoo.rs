//! The program that every Rust client of the zoo runs: its phases, its checks and
//! the canonical records. A client brings a type with its own calls; those that it
//! lacks answer None.

use std::env;
use std::io::Write;
use std::sync::mpsc;
use std::time::Duration;

pub type Res<T> = Result<T, String>;
pub type Headers = Vec<(String, Option<Vec<u8>>)>;
pub type Checks = Vec<(&'static str, Box<dyn FnOnce() -> Res<()> + Send>)>;

#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub timestamp: Option<i64>,
    pub headers: Option<Headers>,
}

/// Partition 0 is the one that is written and read.
pub trait Client: Copy + Send + 'static {
    /// Writes and waits for the answers.
    fn produce(self, topic: &str, codec: &str, records: &[Record], idempotent: bool) -> Res<()>;
    /// Reads from the first record to the last.
    fn read(self, topic: &str) -> Res<Vec<Record>>;
    /// First and next offset.
    fn bounds(self, topic: &str) -> Res<(i64, i64)>;
    /// Reads count records in a group, commits that offset and leaves.
    fn group(self, topic: &str, group: &str, count: usize, commit: Option<i64>) -> Res<Vec<Record>>;
    /// Names of all topics.
    fn topics(self) -> Res<Vec<String>>;
    /// Offset of the first record at or after a time; None when there is none.
    fn offset_at(self, _topic: &str, _ms: i64) -> Option<Res<Option<i64>>> {
        None
    }
    /// Whether it has an idempotent producer.
    fn has_idempotence(self) -> bool {
        false
    }
    /// Admin calls in order, on a topic to make, one with COUNT records and a
    /// group without members.
    fn admin(self, _created: String, _filled: String, _group: String) -> Checks {
        Vec::new()
    }
}

pub const COUNT: usize = 30;
const CHECK_TIMEOUT: Duration = Duration::from_secs(20);
const FIRST_TIMESTAMP: i64 = 1_600_000_000_000;

fn setting(name: &str) -> String {
    env::var(name).unwrap_or_default()
}

pub fn bootstrap() -> String {
    setting("ZOO_BOOTSTRAP")
}

pub fn carries(what: &str) -> bool {
    setting("ZOO_CARRIES").split(',').any(|c| c == what)
}

fn timestamp(i: usize) -> Option<i64> {
    carries("timestamps").then(|| FIRST_TIMESTAMP + 1000 * i as i64)
}

fn headers(i: usize) -> Option<Headers> {
    carries("headers").then(|| match i % 3 {
        0 => vec![("h".into(), Some(format!("x{i}").into_bytes())), ("n".into(), None)],
        _ => Vec::new(),
    })
}

fn canonical() -> Vec<Record> {
    let value = |i: usize| match i {
        _ if i % 11 == 5 => None,
        _ if i % 13 == 8 => Some(Vec::new()),
        _ if i % 10 == 6 => Some((0..=255).collect()),
        _ => Some(format!("v{i}-").repeat(100).into_bytes()[..100].to_vec()),
    };
    (0..COUNT)
        .map(|i| Record {
            key: (i % 7 != 3).then(|| format!("k{i}").into_bytes()),
            value: value(i),
            timestamp: timestamp(i),
            headers: headers(i),
        })
        .collect()
}

pub fn equal<T: PartialEq + std::fmt::Debug>(got: T, want: T) -> Res<()> {
    if got == want {
        return Ok(());
    }
    Err(format!("got {got:?}, want {want:?}"))
}

/// Compares what the client promises to carry.
fn same(got: Vec<Record>, want: &[Record]) -> Res<()> {
    let comparable = |r: &Record| {
        let bytes = |b: &Option<Vec<u8>>| if carries("nulls") { b.clone() } else { Some(b.clone().unwrap_or_default()) };
        Record {
            key: bytes(&r.key),
            value: bytes(&r.value),
            timestamp: r.timestamp.filter(|_| carries("timestamps")),
            headers: r.headers.clone().filter(|_| carries("headers")),
        }
    };
    for i in 0..got.len().max(want.len()) {
        let (g, w) = (got.get(i).map(comparable), want.get(i).map(comparable));
        if g != w {
            return Err(format!("{} records, want {}; record {i} is {g:?}, want {w:?}", got.len(), want.len()));
        }
    }
    Ok(())
}

fn quoted(s: &str) -> String {
    let mut out = String::from("\"");
    for c in s.chars().take(500) {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if (c as u32) < 32 => out.push(' '),
            c => out.push(c),
        }
    }
    out + "\""
}

fn hex(b: &Option<Vec<u8>>) -> String {
    match b {
        None => "null".into(),
        Some(b) => format!("\"{}\"", b.iter().map(|x| format!("{x:02x}")).collect::<String>()),
    }
}

/// Runs one check in a thread of its own, which is left behind when it is late.
fn check(name: &str, run: impl FnOnce() -> Res<()> + Send + 'static) {
    let (done, result) = mpsc::channel();
    std::thread::spawn(move || done.send(run()));
    let outcome = match result.recv_timeout(CHECK_TIMEOUT) {
        Ok(outcome) => outcome,
        Err(mpsc::RecvTimeoutError::Timeout) => Err(format!("not done after {CHECK_TIMEOUT:?}")),
        Err(mpsc::RecvTimeoutError::Disconnected) => Err("the client panicked".into()),
    };
    match outcome {
        Ok(()) => println!("{{\"check\":\"{name}\",\"ok\":true}}"),
        Err(e) => println!("{{\"check\":\"{name}\",\"ok\":false,\"error\":{}}}", quoted(&e)),
    }
}

fn own<C: Client>(client: C) {
    let prefix = format!("zoo-{}-", setting("ZOO_ROW"));
    let codecs = setting("ZOO_CODECS");
    for codec in codecs.split(',').map(String::from) {
        let (topic, of) = (format!("{prefix}{codec}"), codec.clone());
        check(&format!("produce-{codec}"), move || client.produce(&topic, &of, &canonical(), false));
        let topic = format!("{prefix}{codec}");
        check(&format!("consume-{codec}"), move || same(client.read(&topic)?, &canonical()));
    }
    let one = |name: &'static str, value: Option<Vec<u8>>| {
        let topic = format!("{prefix}{name}");
        let record = Record { key: Some(name.into()), value, timestamp: timestamp(0), headers: headers(1) };
        check(name, move || {
            client.produce(&topic, "none", &[record.clone()], false)?;
            same(client.read(&topic)?, &[record])
        });
    };
    if carries("nulls") {
        one("tombstone", None);
    }
    one("large", Some((0..500_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect()));
    if client.has_idempotence() {
        let topic = format!("{prefix}idempotent");
        check("idempotent", move || {
            client.produce(&topic, "none", &canonical(), true)?;
            same(client.read(&topic)?, &canonical())
        });
    }
    let filled = format!("{prefix}none");
    let topic = filled.clone();
    check("metadata", move || equal(client.topics()?.contains(&topic), true));
    let topic = filled.clone();
    check("offsets", move || equal(client.bounds(&topic)?, (0, COUNT as i64)));
    if client.offset_at(&filled, FIRST_TIMESTAMP).is_some() {
        let topic = filled.clone();
        check("seek-time", move || {
            equal(client.offset_at(&topic, FIRST_TIMESTAMP + 9001), Some(Ok(Some(10))))?;
            equal(client.offset_at(&topic, FIRST_TIMESTAMP + 1000 * COUNT as i64), Some(Ok(None)))
        });
    }
    let (topic, group) = (filled.clone(), format!("{prefix}group"));
    check("group", move || same(client.group(&topic, &group, COUNT, None)?, &canonical()));
    let (topic, group) = (filled.clone(), format!("{prefix}commit"));
    check("commit", move || {
        same(client.group(&topic, &group, 10, Some(10))?, &canonical()[..10])?;
        same(client.group(&topic, &group, COUNT - 10, None)?, &canonical()[10..])
    });
    for (name, run) in client.admin(format!("{prefix}admin"), filled, format!("{prefix}commit")) {
        check(name, run);
    }
}

pub fn run<C: Client>(client: C) {
    let topics: Vec<String> = setting("ZOO_TOPICS").split(',').filter(|t| !t.is_empty()).map(String::from).collect();
    let phase = setting("ZOO_PHASE");
    if phase == "own" {
        own(client);
    }
    for topic in topics {
        let codec = topic.rsplit('-').next().unwrap_or_default().to_string();
        match phase.as_str() {
            "produce" => {
                let of = codec.clone();
                check(&format!("produce-{codec}"), move || client.produce(&topic, &of, &canonical(), false));
            }
            "consume" => check(&format!("consume-{codec}"), move || {
                for r in client.read(&topic)? {
                    let headers = r.headers.map_or("null".into(), |all| {
                        let pairs: Vec<String> = all.iter().map(|(name, v)| format!("[{},{}]", quoted(name), hex(v))).collect();
                        format!("[{}]", pairs.join(","))
                    });
                    // A client that shows a record without timestamp as having none means Kafka's -1.
                    let none = if carries("timestamps") { "-1" } else { "null" };
                    let time = r.timestamp.map_or(none.into(), |t| t.to_string());
                    println!("{{\"topic\":{},\"k\":{},\"v\":{},\"t\":{time},\"h\":{headers}}}", quoted(&topic), hex(&r.key), hex(&r.value));
                }
                Ok(())
            }),
            _ => {}
        }
    }
    std::io::stdout().flush().ok();
    // Threads of a check that failed may still hang.
    std::process::exit(0);
}
