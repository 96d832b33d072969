//! Servers, their users, and what befalls them.

use std::time::Duration;

use hearth_rooms::Room;
use hearth_testkit::{Answer, Client, Faults, Follower, SimNetwork, TestServer, encode};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use ruma::OwnedRoomId;
use serde_json::{Value, json};

use super::actions::Action;

/// Without `use_state_after` a client takes the last state event of a timeline for the state, which resolution may have
/// decided otherwise; no server can tell it so.
const WHOLE: &str = "use_state_after=true";

/// The versions that runs take turns with.
const VERSIONS: [&str; 12] = ["1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12"];

/// What a run is like.
#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    pub version: &'static str,
    pub servers: usize,
    pub steps: usize,
    /// Messages are lost and repeated.
    pub loses: bool,
    /// Some messages take long.
    pub delays: bool,
    pub partitions: bool,
    pub crashes: bool,
    /// More than talking: memberships, power levels and other state.
    pub acts: bool,
}

impl Plan {
    /// The plan of a seed: every kind of trouble alone, and all together.
    pub fn of_seed(seed: u64) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(seed ^ 0x9e37_79b9_7f4a_7c15);
        let trouble = seed % 8;
        let mut chance = |usual: bool| usual || trouble == 7 || random.random_range(0..8) == 0;
        let (loses, delays) = (chance(trouble == 2), chance(trouble == 3));
        let (partitions, crashes) = (chance(matches!(trouble, 4 | 6)), chance(matches!(trouble, 5 | 6)));
        Self {
            seed,
            version: VERSIONS[(seed / 8 % VERSIONS.len() as u64) as usize],
            servers: [2, 3, 3, 4, 5][random.random_range(0..5)],
            steps: random.random_range(15..40),
            loses,
            delays,
            partitions,
            crashes,
            acts: trouble != 0,
        }
    }
}

/// A server with its people.
pub struct Site {
    pub name: String,
    server: Option<TestServer>,
    pub users: Vec<Client>,
    pub followers: Vec<Follower>,
    lives: u64,
}

impl Site {
    async fn new(number: usize, seed: u64, network: &SimNetwork) -> Self {
        let name = format!("hs{number}");
        let server = TestServer::simulated(&name, 2, seed * 64 + number as u64, network);
        let mut users = vec![server.register("ann").await];
        if number < 3 {
            users.push(server.register("bob").await);
        }
        let followers = vec![Follower::new(server.login("ann", "FOLLOWER").await, WHOLE)];
        Self {
            name,
            server: Some(server),
            users,
            followers,
            lives: 0,
        }
    }

    pub fn server(&self) -> &TestServer {
        self.server
            .as_ref()
            .expect("only a crash takes it, and brings it back")
    }

    /// The room as this server has it.
    pub fn room(&self, id: &OwnedRoomId) -> Option<Room> {
        self.server()
            .inner()
            .parts()
            .rooms
            .get(id)
            .expect("rooms are read")
    }

    /// Whether this server takes itself to be in the room.
    pub fn is_in(&self, id: &OwnedRoomId) -> bool {
        self.room(id).is_some_and(|room| room.is_resident())
    }

    fn crash(&mut self, seed: u64, network: &SimNetwork) {
        let server = self.server.take().expect("it runs");
        self.lives += 1;
        let server = server.crash_simulated(seed * 64 + 1_000_000 * self.lives, network);
        let endpoint = server.endpoint();
        self.users = self.users.iter().map(|user| user.on(endpoint.clone())).collect();
        let followers = self.followers.drain(..);
        self.followers = followers.map(|follower| follower.on(endpoint.clone())).collect();
        self.server = Some(server);
    }
}

/// Something that somebody does.
pub struct Running {
    pub site: usize,
    pub what: String,
    /// Whether its event must be everywhere at the end, if it is acknowledged.
    pub counts: bool,
    task: tokio::task::JoinHandle<Answer>,
}

/// An event that its server acknowledged.
pub struct Said {
    pub site: usize,
    pub event: String,
}

/// A run.
pub struct World {
    pub plan: Plan,
    pub network: SimNetwork,
    pub sites: Vec<Site>,
    pub room: OwnedRoomId,
    pub said: Vec<Said>,
    running: Vec<Running>,
    random: ChaCha8Rng,
    cut: Vec<(usize, usize)>,
    /// What was done, and what came of it, for who looks into a failure.
    log: Vec<String>,
    begun: tokio::time::Instant,
}

impl World {
    pub async fn new(plan: Plan) -> Self {
        let network = SimNetwork::new(plan.seed);
        let mut sites = Vec::new();
        for number in 1..=plan.servers {
            sites.push(Site::new(number, plan.seed, &network).await);
        }
        introduce(&sites).await;
        let mut power = json!({ "@ann:hs1": 100 });
        if plan.version == "12" {
            // Who created the room stands above all levels there.
            power = json!({});
        }
        for site in &sites[1..] {
            power[&site.users[0].user_id] = json!(50);
        }
        let levels = json!({ "users": power, "state_default": 0, "invite": 0, "events": {} });
        let body = json!({ "preset": "public_chat", "room_version": plan.version,
            "power_level_content_override": levels });
        let made = sites[0].users[0].post("/createRoom", body).await.ok();
        let room = made["room_id"].as_str().expect("a room id");
        Self {
            room: OwnedRoomId::try_from(room).expect("a room id"),
            random: ChaCha8Rng::seed_from_u64(plan.seed),
            network,
            sites,
            plan,
            said: Vec::new(),
            running: Vec::new(),
            cut: Vec::new(),
            log: Vec::new(),
            begun: tokio::time::Instant::now(),
        }
    }

    pub fn below(&mut self, bound: usize) -> usize {
        self.random.random_range(0..bound)
    }

    pub fn note(&mut self, line: String) {
        let at = self.begun.elapsed().as_millis();
        self.log.push(format!("{at:>8} {line}"));
    }

    /// What was done and what the network did.
    pub fn course(&self) -> Vec<String> {
        let mut course = self.log.clone();
        course.extend(self.network.trace());
        course
    }

    /// Fails with everything that is known.
    #[track_caller]
    pub fn fail(&self, what: &str) -> ! {
        if std::env::var_os("HEARTH_SIM_VERBOSE").is_some() {
            eprintln!("{}", self.network.trace().join("\n"));
            for site in &self.sites {
                eprintln!(
                    "{}:\n{}",
                    site.name,
                    site.room(&self.room)
                        .map_or(String::new(), |room| describe(&room))
                );
            }
        }
        panic!("{}\n\n{:?}: {what}", self.log.join("\n"), self.plan);
    }

    /// One or two things at once, some trouble, and a pause.
    pub async fn step(&mut self) {
        self.trouble();
        for _ in 0..1 + self.below(2) {
            let action = Action::draw(self);
            self.begin(action);
        }
        let pause = [0, 20, 200, 3_000][self.below(4)];
        tokio::time::sleep(Duration::from_millis(pause)).await;
        self.collect().await;
        if self.below(4) == 0 {
            let site = self.below(self.sites.len());
            for follower in &mut self.sites[site].followers {
                follower.pull().await;
            }
        }
    }

    fn trouble(&mut self) {
        if self.below(6) == 0 {
            let mut faults = Faults::default();
            if self.plan.loses {
                (faults.lost_requests, faults.lost_replies) = (self.below(30) as u32, self.below(30) as u32);
                faults.repeats = self.below(30) as u32;
            }
            if self.plan.delays {
                faults.slow = self.below(40) as u32;
            }
            self.network.set_faults(faults);
        }
        if self.plan.partitions && self.below(4) == 0 {
            let (one, other) = (self.below(self.sites.len()), self.below(self.sites.len()));
            if one != other {
                let names = (&self.sites[one].name, &self.sites[other].name);
                self.network.partition(names.0, names.1);
                self.cut.push((one, other));
                self.note(format!("hs{} and hs{} are cut off", one + 1, other + 1));
            }
        }
        if !self.cut.is_empty() && self.below(6) == 0 {
            let at = self.below(self.cut.len());
            let (one, other) = self.cut.swap_remove(at);
            self.network.heal(&self.sites[one].name, &self.sites[other].name);
            self.note(format!("hs{} and hs{} are joined", one + 1, other + 1));
        }
        if self.plan.crashes && self.below(10) == 0 {
            let at = self.below(self.sites.len());
            self.crash(at);
        }
    }

    fn crash(&mut self, at: usize) {
        let (gone, left) = std::mem::take(&mut self.running)
            .into_iter()
            .partition(|running: &Running| running.site == at);
        self.running = left;
        for running in gone {
            let running: Running = running;
            running.task.abort();
            self.note(format!("{}: nobody knows", running.what));
        }
        self.note(format!("hs{} crashes", at + 1));
        let (seed, network) = (self.plan.seed, self.network.clone());
        self.sites[at].crash(seed, &network);
    }

    fn begin(&mut self, action: Action) {
        self.note(format!("{} begins", action.what));
        let user = &self.sites[action.site].users[action.user];
        let client = user.on(user.endpoint.clone());
        let (site, what, counts) = (action.site, action.what.clone(), action.counts);
        let task = tokio::spawn(action.perform(client));
        self.running.push(Running {
            site,
            what,
            counts,
            task,
        });
    }

    /// Takes the answers that are there.
    async fn collect(&mut self) {
        let (done, left) = std::mem::take(&mut self.running)
            .into_iter()
            .partition(|running: &Running| running.task.is_finished());
        self.running = left;
        for running in done {
            let running: Running = running;
            self.finish(running).await;
        }
    }

    /// Waits for all answers.
    pub async fn collect_all(&mut self) {
        for running in std::mem::take(&mut self.running) {
            self.finish(running).await;
        }
    }

    async fn finish(&mut self, running: Running) {
        let answer = tokio::time::timeout(Duration::from_secs(3_600), running.task).await;
        let Ok(answer) = answer else {
            self.fail(&format!("{}: no answer in an hour", running.what));
        };
        let answer = answer.expect("no panic");
        self.note(format!("{}: {} {}", running.what, answer.status, brief(&answer)));
        let sane = answer.status == 200
            || (400..500).contains(&answer.status)
            || answer.status == 502
            || answer.status == 504;
        if !sane {
            self.fail(&format!("{}: {} {}", running.what, answer.status, answer.text()));
        }
        if running.counts && answer.status == 200 {
            let event = answer.json()["event_id"].as_str().unwrap_or_default().to_owned();
            self.said.push(Said {
                site: running.site,
                event,
            });
        }
    }

    /// Ends all trouble.
    pub fn heal(&mut self) {
        self.note("the network heals".to_owned());
        self.network.set_faults(Faults::default());
        for (one, other) in std::mem::take(&mut self.cut) {
            self.network.heal(&self.sites[one].name, &self.sites[other].name);
        }
    }
}

/// Has each server ask each other one something, so that all know each other's keys. A server that joins a room while
/// another one cannot be reached, whose key it never had, takes nothing of it; that is not what is proven here.
async fn introduce(sites: &[Site]) {
    for asking in sites {
        for asked in sites.iter().filter(|site| site.name != asking.name) {
            let path = format!("/profile/{}", encode(&asked.users[0].user_id));
            let answer = asking.users[0].get(&path).await;
            assert!(answer.status < 500, "{answer:?}");
        }
    }
}

/// The room's events, a line each.
fn describe(room: &Room) -> String {
    let line = |event: &std::sync::Arc<hearth_rooms::Event>| {
        let (pdu, header) = (&event.pdu, &event.header);
        let prev: Vec<&str> = pdu.prev_events().iter().map(|id| &id.as_str()[..6]).collect();
        let auth: Vec<&str> = pdu.auth_events().iter().map(|id| &id.as_str()[..6]).collect();
        format!(
            "{:>4} {} {:?} {} {:?} by {} flags {} at {}/{} depth {} prev {prev:?} auth {auth:?} {}",
            event.short,
            &pdu.event_id.as_str()[..6],
            pdu.origin_server_ts(),
            pdu.kind(),
            pdu.state_key(),
            pdu.sender(),
            header.flags.0,
            header.place.anchor,
            header.place.offset,
            pdu.depth(),
            String::from_utf8_lossy(pdu.content())
        )
    };
    let lines: Vec<String> = super::checks::events_of(room).iter().map(line).collect();
    lines.join("\n")
}

fn brief(answer: &Answer) -> String {
    let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    match (body["event_id"].as_str(), body["error"].as_str()) {
        (Some(event), _) => event.to_owned(),
        (_, Some(error)) => error.to_owned(),
        _ => String::new(),
    }
}
