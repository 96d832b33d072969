//! State resolution beside Ruma's, by the size of the room and of the conflict. The rooms and the measuring are those of
//! `cargo bench --bench resolve`; both results are compared.

use crate::report::{Report, Row};
use crate::{Result, Settings};

#[path = "../../src/events/benches/resolve.rs"]
#[expect(dead_code, reason = "the bench has a main function")]
mod bench;
use bench::{CASES, Cost, cost};

/// Runs the scenario.
pub fn run(settings: &Settings, report: &mut Report) -> Result<()> {
    for (members, forks, changes) in CASES.iter().copied() {
        let members = settings.count(members).max(200);
        let Cost {
            keys,
            own_ms,
            ruma_ms,
        } = cost(members, forks, changes);
        let figure = format!("resolve {forks} forks with {changes} changes, {members} members");
        let row = Row::new(figure, own_ms, "ms").ceiling(ruma_ms).at_most(ruma_ms);
        report.add(row.note(format!(
            "{keys} keys in conflict; beside it Ruma on the same: {:.0} times",
            ruma_ms / own_ms
        )));
    }
    Ok(())
}
