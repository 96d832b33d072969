//! The commands of the real binary, beside a server that runs and where none does, and what it writes into its log.

use std::fs::{File, Metadata};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

/// A server that is not ready, or has not stopped, after this long will not do it any more.
const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(10);
const STDIN: &str = "--password-stdin";

/// A folder with a configuration, and the server that runs on it, if one does.
struct Hearth {
    folder: TempDir,
    address: String,
    child: Option<Child>,
}

impl Hearth {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let config = format!(
            "server_name = \"hs1\"\ndata_dir = {:?}\nclient_listen = \"127.0.0.1:0\"\nrate_limits = false\n",
            folder.path().join("data")
        );
        std::fs::write(folder.path().join("hearth.toml"), config).expect("the configuration is written");
        Self {
            folder,
            address: String::new(),
            child: None,
        }
    }

    /// Adds to the configuration.
    fn configure(&self, text: &str) {
        let path = self.folder.path().join("hearth.toml");
        let config = std::fs::read_to_string(&path).expect("the configuration");
        std::fs::write(path, config + text).expect("the configuration is written");
    }

    fn binary(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hearth"));
        command
            .args(arguments)
            .arg("--config")
            .arg(self.folder.path().join("hearth.toml"));
        command
    }

    /// Starts the server and waits until it is ready.
    fn start(&mut self) {
        let said_before = self.log().len();
        self.start_only();
        let begun = Instant::now();
        self.address = loop {
            let log = self.log();
            let said = log
                .get(said_before..)
                .and_then(|said| said.split_once("listening on http://"));
            if let Some((address, _)) = said.and_then(|(_, rest)| rest.split_once('\n')) {
                break address.to_owned();
            }
            assert!(begun.elapsed() < PATIENCE, "not ready: {log}");
            std::thread::sleep(POLL);
        };
    }

    fn start_only(&mut self) {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.folder.path().join("log"));
        let log = log.expect("a log file");
        let mut command = self.binary(&[]);
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("the log file twice"))
            .stderr(log);
        self.child = Some(command.spawn().expect("the server starts"));
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Stops the server in order.
    fn stop(&mut self) {
        self.tell_to_stop();
        let mut child = self.child.take().expect("a server runs");
        let begun = Instant::now();
        while child.try_wait().expect("the server can be asked").is_none() {
            assert!(begun.elapsed() < PATIENCE, "it does not stop: {}", self.log());
            std::thread::sleep(POLL);
        }
    }

    fn tell_to_stop(&self) {
        let pid = self.child.as_ref().expect("a server runs").id().to_string();
        let told = Command::new("kill").args(["-TERM", &pid]).status();
        assert!(told.expect("kill runs").success());
    }

    /// Kills the server, if one runs.
    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            drop(child.kill());
            drop(child.wait());
        }
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("data/admin.sock")
    }

    /// Runs `hearth user`, which must come to what is expected; gives what it wrote.
    fn user(&self, arguments: &[&str], input: &str, is_done: bool, says: &str) -> String {
        let mut command = self.binary(&[&["user"], arguments].concat());
        let child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let mut child = child.expect("the command starts");
        // One that reads nothing may be gone already.
        drop(
            child
                .stdin
                .take()
                .map(|mut stdin| stdin.write_all(input.as_bytes())),
        );
        let output = child.wait_with_output().expect("the command ends");
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert_eq!(output.status.success(), is_done, "{arguments:?}: {text}");
        assert!(text.contains(says), "{arguments:?}: {text}");
        text
    }

    /// A request of a client: the status and the body.
    fn call(&self, method: &str, path: &str, token: Option<&str>, body: &Value) -> (u64, Value) {
        let mut stream = TcpStream::connect(&self.address).expect("the server accepts");
        let body = body.to_string();
        let authorization = token.map_or(String::new(), |token| {
            format!("Authorization: Bearer {token}\r\n")
        });
        let head = format!(
            "{method} /_matrix/client/v3{path} HTTP/1.1\r\nHost: hs1\r\nConnection: close\r\n{authorization}\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(head.as_bytes()).expect("the request is sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        let body = serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {answer}"));
        (status.expect("a status"), body)
    }

    /// A login with a password: the token, or the error code.
    fn log_in(&self, name: &str, password: &str) -> Result<String, String> {
        let body = json!({
            "type": "m.login.password", "password": password, "identifier": { "type": "m.id.user", "user": name },
        });
        let (status, answer) = self.call("POST", "/login", None, &body);
        let text = |name: &str| answer[name].as_str().unwrap_or_default().to_owned();
        match status {
            200 => Ok(text("access_token")),
            _ => Err(text("errcode")),
        }
    }
}

impl Drop for Hearth {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Each command does and says the same whether the server runs or not.
#[test]
fn accounts_are_managed_whether_the_server_runs_or_not() {
    let mut hearth = Hearth::new();
    hearth.user(
        &["create", "alice", STDIN],
        "a password",
        true,
        "@alice:hs1 is created",
    );
    assert!(!hearth.socket().exists());
    hearth.start();
    let alice = hearth.log_in("alice", "a password").expect("a token");
    let (_, made) = hearth.call("POST", "/createRoom", Some(&alice), &json!({}));
    let room = format!("/rooms/{}", made["room_id"].as_str().expect("a room id"));
    let mode = |metadata: Metadata| metadata.permissions().mode() & 0o777;
    let mode = std::fs::metadata(hearth.socket()).map(mode);
    assert_eq!(mode.expect("the socket"), 0o600);

    for (name, is_running) in [("bob", true), ("carol", false)] {
        let full = format!("@{name}:hs1");
        // In the second round it is started for what clients do, and killed: the socket stays, and nobody listens on it.
        let between = |hearth: &mut Hearth| {
            if !is_running {
                hearth.kill();
                assert!(hearth.socket().exists());
            }
        };
        let clients = |hearth: &mut Hearth| {
            if !is_running {
                hearth.start();
            }
        };
        between(&mut hearth);
        let create = ["create", name, STDIN];
        hearth.user(&create, "short\n", false, "The password is too short");
        hearth.user(&create, "", false, "standard input has no password");
        hearth.user(&create, "password\n", true, &format!("{full} is created"));
        hearth.user(&["create", name], "", false, "This user name is taken");
        hearth.user(&["create", "@x:elsewhere"], "", false, "is not a user of hs1");
        let admin = ["create", &format!("{name}-admin"), "--admin"];
        let text = hearth.user(&admin, "", true, "is created and is an administrator");
        assert!(text.contains("password: "), "{text}");
        hearth.user(
            &["reset-password", "nobody"],
            "",
            false,
            "there is no user @nobody:hs1",
        );

        clients(&mut hearth);
        let token = hearth.log_in(name, "password").expect("a token");
        let invitation = json!({ "user_id": full });
        let (invited, _) = hearth.call("POST", &format!("{room}/invite"), Some(&alice), &invitation);
        assert_eq!(invited, 200);
        between(&mut hearth);
        let says = format!("{full} has a new password; 1 devices were logged out");
        hearth.user(&["reset-password", name, STDIN], "another one", true, &says);

        clients(&mut hearth);
        let (status, _) = hearth.call("GET", "/account/whoami", Some(&token), &Value::Null);
        assert_eq!(status, 401);
        assert_eq!(hearth.log_in(name, "password"), Err("M_FORBIDDEN".to_owned()));
        hearth.log_in(name, "another one").expect("a token");
        between(&mut hearth);
        hearth.user(&["deactivate", name], "", true, &format!("{full} is deactivated"));

        clients(&mut hearth);
        assert_eq!(
            hearth.log_in(name, "another one"),
            Err("M_USER_DEACTIVATED".to_owned())
        );
        let member = format!("{room}/state/m.room.member/{full}");
        let (_, member) = hearth.call("GET", &member, Some(&alice), &Value::Null);
        assert_eq!(member["membership"], "leave");
    }
    hearth.stop();
    assert!(!hearth.socket().exists(), "it goes with its server");
}

/// A server that starts or stops has the data and takes no commands: they wait for it.
#[test]
fn commands_wait_for_a_server_that_starts_or_stops() {
    for round in 0..3 {
        let mut hearth = Hearth::new();
        hearth.start_only();
        let lock = hearth.folder.path().join("data/database/LOCK");
        let begun = Instant::now();
        while !lock.exists() {
            assert!(begun.elapsed() < PATIENCE, "not begun: {}", hearth.log());
            std::thread::yield_now();
        }
        hearth.user(&["create", "alice", STDIN], "password\n", true, "is created");
        hearth.tell_to_stop();
        std::thread::sleep(round * POLL);
        hearth.user(&["deactivate", "alice"], "", true, "is deactivated");
        hearth.stop();
    }
}

/// Even where everything is logged, nothing of it says what people say, nor lets anybody in.
#[test]
fn the_log_has_no_secrets() {
    let mut hearth = Hearth::new();
    hearth.configure("[log]\nfilter = \"trace\"\nformat = \"json\"\n");
    let password = "hidden-password";
    hearth.user(&["create", "alice", STDIN], password, true, "is created");
    hearth.start();
    hearth.user(&["create", "bob", STDIN], "hidden-password-2", true, "is created");
    let token = hearth.log_in("alice", password).expect("a token");
    let wrong = hearth.log_in("alice", "hidden-password-3");
    assert_eq!(wrong, Err("M_FORBIDDEN".to_owned()));
    let invited = json!({ "invite": ["@bob:hs1"], "topic": "hidden-topic" });
    let (_, made) = hearth.call("POST", "/createRoom", Some(&token), &invited);
    let room = format!("/rooms/{}", made["room_id"].as_str().expect("a room id"));
    let message = json!({ "msgtype": "m.text", "body": "hidden-message" });
    let say = |path: &str, message: &Value| {
        hearth
            .call("PUT", &format!("{room}{path}"), Some(&token), message)
            .0
    };
    assert_eq!(say("/send/m.room.message/1", &message), 200);
    assert_eq!(
        say(
            "/send/m.room.message/2",
            &json!({ "body": "hidden-message", "n": 1.5 })
        ),
        400
    );
    assert_eq!(
        say(
            "/state/m.room.power_levels",
            &json!({ "users": "hidden-message" })
        ),
        400
    );
    let profile = json!({ "displayname": "hidden-name" });
    let path = "/profile/@alice:hs1/displayname";
    assert_eq!(hearth.call("PUT", path, Some(&token), &profile).0, 200);
    let with_query = format!("/sync?timeout=0&access_token={token}");
    assert_eq!(hearth.call("GET", &with_query, None, &Value::Null).0, 200);
    let unknown = hearth.call("GET", "/account/whoami", Some("hidden-token"), &Value::Null);
    assert_eq!(unknown.0, 401);
    hearth.stop();
    let log = hearth.log();
    let lines: Vec<Value> = log
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect();
    let answers: Vec<&Value> = lines
        .iter()
        .filter(|line| line["target"] == "hearth::access")
        .collect();
    assert!(answers.len() > 8, "{log}");
    for answer in answers {
        assert!(answer["span"]["id"].is_string(), "{answer}");
    }
    for line in log.lines() {
        let shown = line.contains("hidden-") || line.contains(&token);
        assert!(!shown, "{line}");
    }
}
