//! The real binary on RocksDB: killed at once, it comes back with everything it acknowledged; and its commands work beside
//! it.

use std::os::unix::fs::PermissionsExt;

use hearth_testkit::{Answer, Follower, TestProcess};
use serde_json::json;

#[tokio::test]
async fn a_killed_server_comes_back_whole() {
    let Some(binary) = TestProcess::binary() else {
        eprintln!("skipped: build the hearth binary first, or name it in HEARTH_BINARY");
        return;
    };
    let mut process = TestProcess::start(binary).await;
    let (alice, bob) = (process.register("alice").await, process.register("bob").await);
    let room = alice.room().with(&bob).messages(3).build().await;
    let mut follower = Follower::new(bob.on(process.endpoint()), "");
    follower.pull().await;
    let mut sent = Vec::new();
    for round in 0..3 {
        for number in 0..5 {
            sent.push(alice.say(&room, &format!("{round}.{number}")).await);
        }
        alice
            .set_state(&room, "m.room.topic", "", json!({ "topic": round.to_string() }))
            .await;
        process.restart().await;
        let topic = alice.state(&room, "m.room.topic", "").await.ok();
        assert_eq!(topic["topic"], round.to_string());
        follower.check("after a kill").await;
    }
    let page = bob.messages(&room, "dir=b&limit=100").await;
    let mut seen = crate::ids(&page["chunk"]);
    seen.reverse();
    seen.retain(|id| sent.contains(id));
    assert_eq!(seen, sent);
    process.kill();
}

async fn log_in(process: &TestProcess, name: &str, password: &str) -> Answer {
    let body = json!({
        "type": "m.login.password", "password": password, "identifier": { "type": "m.id.user", "user": name },
    });
    process
        .endpoint()
        .call("POST", "/_matrix/client/v3/login", None, &body)
        .await
}

/// The commands say and do the same whether the server runs or not.
#[tokio::test]
async fn accounts_are_managed_beside_a_running_server() {
    let Some(binary) = TestProcess::binary() else {
        eprintln!("skipped: build the hearth binary first, or name it in HEARTH_BINARY");
        return;
    };
    let mut process = TestProcess::start(binary).await;
    let alice = process.register("alice").await;
    let room = alice.room().build().await;
    let socket = process.data_dir().join("admin.sock");
    let mode = |metadata: std::fs::Metadata| metadata.permissions().mode() & 0o777;
    assert_eq!(std::fs::metadata(&socket).map(mode).expect("the socket"), 0o600);
    for (name, is_running) in [("bob", true), ("carol", false)] {
        if !is_running {
            // The socket of a server that was killed is still there, and nobody listens on it.
            process.kill();
            assert!(socket.exists());
        }
        let stdin = "--password-stdin";
        let full = format!("@{name}:hs1");
        run(
            &process,
            &["create", name, stdin],
            "short\n",
            false,
            "The password is too short",
        );
        run(
            &process,
            &["create", name, stdin],
            "",
            false,
            "standard input has no password",
        );
        run(
            &process,
            &["create", name, stdin],
            "first password\n",
            true,
            &format!("{full} is created"),
        );
        run(&process, &["create", name], "", false, "This user name is taken");
        run(
            &process,
            &["create", "@x:elsewhere"],
            "",
            false,
            "is not a user of hs1",
        );
        run(
            &process,
            &["reset-password", "nobody"],
            "",
            false,
            "there is no user @nobody:hs1",
        );
        let text = run(
            &process,
            &["create", &format!("{name}-admin"), "--admin"],
            "",
            true,
            "is an administrator",
        );
        assert!(text.contains("password: "), "{text}");
        if !is_running {
            process.restart().await;
        }
        log_in(&process, name, "first password").await.ok();
        let invite = json!({ "user_id": full });
        alice.act(&room, "invite", invite).await.ok();
        let stop_or_go_on = |process: &mut TestProcess| {
            if !is_running {
                process.kill();
            }
        };
        stop_or_go_on(&mut process);
        run(
            &process,
            &["reset-password", name, stdin],
            "second password",
            true,
            &format!("{full} has a new password; 1 devices were logged out"),
        );
        if !is_running {
            process.restart().await;
        }
        log_in(&process, name, "first password")
            .await
            .refused(403, "M_FORBIDDEN");
        log_in(&process, name, "second password").await.ok();
        stop_or_go_on(&mut process);
        run(
            &process,
            &["deactivate", name],
            "",
            true,
            &format!("{full} is deactivated"),
        );
        if !is_running {
            process.restart().await;
        }
        log_in(&process, name, "second password")
            .await
            .refused(403, "M_USER_DEACTIVATED");
        let member = alice.state(&room, "m.room.member", &full).await.ok();
        assert_eq!(member["membership"], "leave");
    }
    process.kill();
}

/// Runs `hearth user`, which must come to what is expected, and gives what it wrote.
fn run(process: &TestProcess, arguments: &[&str], input: &str, is_done: bool, says: &str) -> String {
    let (done, text) = process.command(&[&["user"], arguments].concat(), input);
    assert_eq!(done, is_done, "{arguments:?}: {text}");
    assert!(text.contains(says), "{arguments:?}: {text}");
    text
}
