//! Whom a message notifies: once for all who have the default rules, and once for each user with rules of his own.

use std::hint::black_box;
use std::time::{Duration, Instant};

use hearth_events::{notification, push};
use ruma::{OwnedUserId, UserId};
use serde_json::json;

use crate::Result;
use crate::report::{Report, Row};

/// Each figure is measured for so long.
const MEASURED: Duration = Duration::from_millis(500);
/// Keywords of a user with rules of his own.
const KEYWORDS: usize = 50;

/// What push rules ask of a room, in an ordinary one.
struct Ordinary;

impl push::Surroundings for Ordinary {
    fn room_id(&self) -> &str {
        "!room:hearth.example.org"
    }
    fn members(&self) -> u64 {
        40
    }
    fn display_name(&self) -> Option<String> {
        Some("Bob the Builder".to_owned())
    }
    fn sender_may_notify(&self, _: &str) -> bool {
        false
    }
    fn thread_subscribed(&self) -> Option<bool> {
        None
    }
}

/// Runs the scenario.
pub fn run(report: &mut Report) -> Result<()> {
    let user: OwnedUserId = UserId::parse("@bob:hearth.example.org")?;
    let body = "A message that somebody has written. ".repeat(4);
    let content = format!(r#"{{"body":"{body}","m.mentions":{{}},"msgtype":"m.text"}}"#);
    let event = format!(
        r#"{{"type":"m.room.message","sender":"@alice:hearth.example.org","room_id":"!room:hearth.example.org","content":{content}}}"#
    );
    let class = rate(|| notification::class("m.room.message", None, black_box(content.as_bytes()), false));
    report.add(
        Row::new("messages classified under the default rules", class, "/s")
            .note("once a message, for all users"),
    );
    let reading = rate(|| push::PushEvent::new(black_box(event.as_bytes())).is_some());
    report.add(
        Row::new("messages read for users with rules of their own", reading, "/s").note("once a message"),
    );
    let read = push::PushEvent::new(event.as_bytes()).ok_or("the event cannot be read")?;
    let keyword = |at: usize| json!({ "rule_id": format!("w{at}"), "pattern": format!("word{at}"), "default": false, "enabled": true, "actions": ["notify"] });
    let words: Vec<_> = (0..KEYWORDS).map(keyword).collect();
    let own = push::ruleset(Some(json!({ "content": words })), &user);
    for (name, set) in [
        ("the default rules".to_owned(), push::default_ruleset(&user)),
        (format!("them and {KEYWORDS} keywords"), own),
    ] {
        let rules = push::Rules::new(set, &user);
        let each = rate(|| rules.outcome(&user, black_box(&read), &Ordinary));
        report.add(Row::new(format!("evaluations of {name}"), each, "/s").note("one user, one message"));
    }
    Ok(())
}

/// How often a second.
fn rate<T>(mut run: impl FnMut() -> T) -> f64 {
    let start = Instant::now();
    let mut count = 0_u64;
    while start.elapsed() < MEASURED {
        for _ in 0..100 {
            black_box(run());
        }
        count += 100;
    }
    count as f64 / start.elapsed().as_secs_f64()
}
