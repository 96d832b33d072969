//! The simulated network, with a toy server and with real ones.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use bytes::Bytes;
use hearth_core::http::{Destination, OutboundRequest, OutboundResponse, TransportError};
use hearth_testkit::{Faults, SimNetwork, TestServer};

const TIMEOUT: Duration = Duration::from_secs(10);

async fn ask(
    network: &SimNetwork,
    from: &str,
    to: &str,
    path: &str,
) -> Result<OutboundResponse, TransportError> {
    let request = OutboundRequest {
        destination: Destination::Server(to.to_owned()),
        method: http::Method::GET,
        path_and_query: path.to_owned(),
        headers: http::HeaderMap::new(),
        body: Bytes::new(),
        timeout: TIMEOUT,
        max_response_bytes: 1 << 20,
    };
    network.link(from).send(request).await
}

/// A server that counts what reaches it.
fn toy() -> (Router, Arc<AtomicU32>) {
    let count = Arc::new(AtomicU32::new(0));
    let counted = count.clone();
    let router = Router::new().route(
        "/count",
        get(move || async move { counted.fetch_add(1, Ordering::SeqCst).to_string() }),
    );
    (router, count)
}

#[tokio::test(start_paused = true)]
async fn messages_take_their_time() {
    let network = SimNetwork::new(1);
    let (router, count) = toy();
    network.add("b", router);
    network.set_faults(Faults {
        delay_ms: 100..101,
        ..Faults::default()
    });
    let begun = tokio::time::Instant::now();
    let answer = ask(&network, "a", "b", "/count").await.expect("an answer");
    assert_eq!((answer.status.as_u16(), &answer.body[..]), (200, &b"0"[..]));
    assert_eq!(begun.elapsed().as_millis(), 200);
    assert_eq!(count.load(Ordering::SeqCst), 1);
    let missing = ask(&network, "a", "nobody", "/count").await;
    assert!(
        matches!(missing, Err(TransportError::Unreachable(_))),
        "{missing:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn what_is_lost_and_what_is_repeated() {
    let network = SimNetwork::new(1);
    let (router, count) = toy();
    network.add("b", router);
    for (faults, answered, arrived) in [
        (
            Faults {
                lost_requests: 100,
                ..Faults::default()
            },
            false,
            0,
        ),
        (
            Faults {
                lost_replies: 100,
                ..Faults::default()
            },
            false,
            1,
        ),
        (
            Faults {
                repeats: 100,
                ..Faults::default()
            },
            true,
            2,
        ),
    ] {
        count.store(0, Ordering::SeqCst);
        network.set_faults(faults.clone());
        let begun = tokio::time::Instant::now();
        let answer = ask(&network, "a", "b", "/count").await;
        assert_eq!(answer.is_ok(), answered, "{faults:?}");
        if !answered {
            assert_eq!(answer.err(), Some(TransportError::Timeout));
            assert_eq!(begun.elapsed(), TIMEOUT);
        }
        tokio::time::sleep(TIMEOUT).await;
        assert_eq!(count.load(Ordering::SeqCst), arrived, "{faults:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn partitions_part_and_heal() {
    let network = SimNetwork::new(1);
    let (router, count) = toy();
    network.add("b", router.clone());
    network.add("c", router);
    network.partition("b", "a");
    assert_eq!(
        ask(&network, "a", "b", "/count").await.err(),
        Some(TransportError::Timeout)
    );
    assert!(ask(&network, "a", "c", "/count").await.is_ok());
    network.heal("a", "b");
    assert!(ask(&network, "a", "b", "/count").await.is_ok());
    assert_eq!(count.load(Ordering::SeqCst), 2);
}

/// Two servers ask each other while things go wrong; users chat on both. Gives the network's course.
async fn run(seed: u64) -> Vec<String> {
    let network = SimNetwork::new(seed);
    network.set_faults(Faults {
        delay_ms: 1..50,
        lost_requests: 20,
        lost_replies: 20,
        repeats: 20,
        slow: 5,
    });
    let one = TestServer::simulated("one", 4, seed, &network);
    let two = TestServer::simulated("two", 4, seed + 1, &network);
    let mut events = Vec::new();
    for server in [&one, &two] {
        let alice = server.register("alice").await;
        let room = alice.room().messages(2).build().await;
        events.push(room);
        events.extend(crate::ids(
            &alice.messages(&events[events.len() - 1], "dir=b").await["chunk"],
        ));
    }
    let requests = (0..20).map(|number| {
        let network = network.clone();
        let (from, to) = if number % 2 == 0 {
            ("one", "two")
        } else {
            ("two", "one")
        };
        tokio::spawn(async move { ask(&network, from, to, "/_matrix/client/versions").await })
    });
    let requests: Vec<_> = requests.collect();
    for request in requests {
        match request.await.expect("no panic") {
            Ok(answer) => assert_eq!(answer.status.as_u16(), 200),
            Err(error) => assert_eq!(error, TransportError::Timeout),
        }
    }
    events.extend(network.trace());
    events
}

fn simulate(seed: u64) -> Vec<String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build();
    runtime.expect("a runtime").block_on(run(seed))
}

#[test]
fn a_seed_takes_the_same_course_each_time() {
    for seed in [1, 7] {
        let course = simulate(seed);
        assert_eq!(course, simulate(seed), "seed {seed}");
        assert!(course.iter().any(|line| line.ends_with("lost")), "{course:?}");
    }
    assert_ne!(simulate(1), simulate(2));
}
