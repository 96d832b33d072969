//! Supervised tasks, the signal to stop, and the pool for work that blocks.

use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, mpsc};
use std::task::Poll;
use std::time::Duration;

use tokio::sync::{Semaphore, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tracing::Instrument;

use crate::metrics as names;

/// The pause before work that panicked begins anew; it doubles with each further panic, up to the longest.
const AGAIN_FIRST: Duration = Duration::from_secs(1);
const AGAIN_LONGEST: Duration = Duration::from_secs(5 * 60);
/// Work that went on for so long without a panic has its first pause again after the next.
const AGAIN_FORGOTTEN: Duration = Duration::from_secs(15 * 60);

/// Spawns a task. A panic in it ends the task and is logged at ERROR, because work that nobody
/// waits for would otherwise stop without a trace.
pub fn spawn(name: &'static str, future: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
    let future = Box::pin(future);
    #[expect(clippy::disallowed_methods, reason = "the one place that spawns")]
    tokio::spawn(async move {
        caught(name, future).await;
    })
}

/// Spawns work on which everybody depends for as long as the server runs. After a panic it begins anew, with growing pauses;
/// so what `begin` starts has to read what it goes by anew, and must not count on what the one before was doing. It ends when
/// the work ends by itself, or with the server.
pub fn keep_running<F>(
    name: &'static str,
    shutdown: &Shutdown,
    begin: impl Fn() -> F + Send + 'static,
) -> JoinHandle<()>
where
    F: Future<Output = ()> + Send + 'static,
{
    let shutdown = shutdown.clone();
    spawn(name, async move {
        let mut pause = AGAIN_FIRST;
        loop {
            let begun = Instant::now();
            if caught(name, Box::pin(begin())).await.is_some() {
                return;
            }
            if begun.elapsed() >= AGAIN_FORGOTTEN {
                pause = AGAIN_FIRST;
            }
            tokio::select! {
                biased;
                () = shutdown.wait() => return,
                () = tokio::time::sleep(pause) => {}
            }
            tracing::warn!(task = name, "a task that panicked begins anew");
            pause = (pause * 2).min(AGAIN_LONGEST);
        }
    })
}

/// A step of a task, which a panic in it does not end: what one event or one row brings about must not cost all others. None
/// where it panicked, which is logged.
pub async fn caught<T>(task: &'static str, step: impl Future<Output = T>) -> Option<T> {
    let mut step = std::pin::pin!(step);
    let poll = poll_fn(
        move |cx| match catch_unwind(AssertUnwindSafe(|| step.as_mut().poll(cx))) {
            Ok(poll) => poll.map(Some),
            Err(panic) => {
                note_panic(task, &*panic);
                Poll::Ready(None)
            }
        },
    );
    poll.await
}

/// As [`caught`], for a step that waits for nothing.
pub fn caught_now<T>(task: &'static str, step: impl FnOnce() -> T) -> Option<T> {
    match catch_unwind(AssertUnwindSafe(step)) {
        Ok(done) => Some(done),
        Err(panic) => {
            note_panic(task, &*panic);
            None
        }
    }
}

/// What a step of work for all gives, where what it is about may be damaged: an error that will not pass, and a panic (none), are
/// passed over, with a line in the log that says what comes of it. An error of which `may_pass` says that it may stays one.
pub fn pass_over<T, E: std::fmt::Display>(
    task: &'static str,
    outcome: Option<Result<T, E>>,
    may_pass: impl FnOnce(&E) -> bool,
    comes_of_it: &'static str,
) -> Result<Option<T>, E> {
    match outcome {
        Some(Ok(done)) => return Ok(Some(done)),
        Some(Err(error)) if may_pass(&error) => return Err(error),
        Some(Err(error)) => tracing::error!(task, %error, "{comes_of_it}"),
        None => tracing::error!(task, "{comes_of_it}"),
    }
    count_skipped(task);
    Ok(None)
}

/// Work for all passed over something that cannot be read from what is stored. Whoever passes over it says in the log what
/// that was.
pub fn count_skipped(task: &'static str) {
    metrics::counter!(names::TASK_SKIPPED, "task" => task).increment(1);
}

fn note_panic(task: &'static str, panic: &(dyn std::any::Any + Send)) {
    tracing::error!(task, panic = panic_text(panic), "a task panicked");
    metrics::counter!(names::TASK_PANICS, "task" => task).increment(1);
}

/// Does something to its end, also where whoever waits for it goes away meanwhile, as a client does that hangs up. None where
/// it ended in a panic, which is logged.
pub async fn to_its_end<T: Send + 'static>(
    name: &'static str,
    step: impl Future<Output = T> + Send + 'static,
) -> Option<T> {
    let (done, outcome) = oneshot::channel();
    let step = step.in_current_span();
    spawn(name, async move {
        drop(done.send(step.await));
    });
    outcome.await.ok()
}

/// When a chore is done.
#[derive(Clone, Copy, Debug)]
pub struct Rhythm {
    /// For the first time so long after the start.
    pub first: Duration,
    /// Then with such a pause after each time.
    pub pause: Duration,
}

impl Rhythm {
    /// With the same pause before the first time as after it.
    pub const fn every(pause: Duration) -> Self {
        Self { first: pause, pause }
    }

    /// Once a day, for the first time so long after the start.
    pub const fn daily(first: Duration) -> Self {
        let pause = Duration::from_secs(24 * 60 * 60);
        Self { first, pause }
    }
}

/// Spawns a task that does a chore of `owner` again and again, also after a panic. It ends with the server, or when nobody holds the owner any
/// more.
pub fn repeat<T, F>(
    name: &'static str,
    rhythm: Rhythm,
    shutdown: &Shutdown,
    owner: &Arc<T>,
    chore: impl Fn(Arc<T>) -> F + Send + 'static,
) -> JoinHandle<()>
where
    T: Send + Sync + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let (owner, shutdown) = (Arc::downgrade(owner), shutdown.clone());
    spawn(name, async move {
        let mut pause = rhythm.first;
        loop {
            tokio::select! {
                biased;
                () = shutdown.wait() => return,
                () = tokio::time::sleep(pause) => {}
            }
            pause = rhythm.pause;
            let Some(owner) = owner.upgrade() else { return };
            // After a panic it has its turn again like after any other time.
            caught(name, chore(owner)).await;
        }
    })
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    if let Some(text) = panic.downcast_ref::<&str>() {
        text
    } else if let Some(text) = panic.downcast_ref::<String>() {
        text
    } else {
        "a panic without a message"
    }
}

/// The signal that the server is stopping. Clones share it; it goes off once and stays so.
#[derive(Clone, Debug)]
pub struct Shutdown(Arc<watch::Sender<bool>>);

impl Default for Shutdown {
    fn default() -> Self {
        Self::new()
    }
}

impl Shutdown {
    /// A signal that has not gone off.
    pub fn new() -> Self {
        Self(Arc::new(watch::Sender::new(false)))
    }

    /// Sets it off.
    pub fn trigger(&self) {
        self.0.send_replace(true);
    }

    /// Whether it has gone off.
    pub fn is_triggered(&self) -> bool {
        *self.0.borrow()
    }

    /// Returns once it has gone off, at once if it already has.
    pub async fn wait(&self) {
        let mut receiver = self.0.subscribe();
        // The sender lives in `self`, so waiting cannot fail.
        let _ = receiver.wait_for(|stopping| *stopping).await;
    }
}

/// A bounded number of threads for sections that block: password hashing, image work, storage
/// reads that go to disk. Callers wait for a free place.
#[derive(Clone, Debug)]
pub struct Pool(Threads);

#[derive(Clone, Debug)]
enum Threads {
    /// The caller's.
    Own,
    /// Those of the runtime, one for each permit.
    Shared(Arc<Semaphore>),
    /// One that takes sections in their order.
    Gentle(mpsc::Sender<Job>),
}

type Job = Box<dyn FnOnce() + Send>;

/// How much later than other threads, in steps of the system's scheduler ("nice"), a gentle thread has its turn.
const GENTLE_NICE: i32 = 10;

impl Pool {
    /// At most `threads` sections run at once.
    pub fn new(threads: usize) -> Self {
        assert!(threads > 0, "a pool needs a thread");
        Self(Threads::Shared(Arc::new(Semaphore::new(threads))))
    }

    /// Runs sections in place, on the caller's thread: simulations stay on one thread and in order.
    pub fn inline() -> Self {
        Self(Threads::Own)
    }

    /// A pool of its own for work that takes long, so that it never holds a place that other requests want. Inline where
    /// this one is.
    pub fn beside(&self, threads: usize) -> Self {
        match &self.0 {
            Threads::Own => Self::inline(),
            Threads::Shared(_) | Threads::Gentle(_) => Self::new(threads),
        }
    }

    /// A pool of one thread of its own, for work that much depends on but nobody at this moment: where processors are
    /// scarce it has less of them than requests. Threads that a section starts are as gentle. Inline where this one is.
    /// Fails where the system has no thread to give.
    pub fn gentle(&self, name: &str) -> std::io::Result<Self> {
        if let Threads::Own = &self.0 {
            return Ok(Self::inline());
        }
        let (sender, jobs) = mpsc::channel::<Job>();
        let run = move || {
            // Where the system does not allow it, the work is done all the same.
            let _ = rustix::process::nice(GENTLE_NICE);
            jobs.into_iter().for_each(|job| job());
        };
        std::thread::Builder::new().name(name.to_owned()).spawn(run)?;
        Ok(Self(Threads::Gentle(sender)))
    }

    /// Runs a section and gives its result. A panic in it goes on in the caller. A section that
    /// has begun runs to its end even if the caller gives up waiting.
    pub async fn run<T: Send + 'static>(&self, section: impl FnOnce() -> T + Send + 'static) -> T {
        match &self.0 {
            Threads::Own => section(),
            Threads::Shared(places) => {
                let place = places.clone().acquire_owned().await;
                let place = place.expect("the semaphore is never closed");
                let job = tokio::task::spawn_blocking(move || {
                    let result = section();
                    drop(place);
                    result
                });
                match job.await {
                    Ok(result) => result,
                    Err(error) => std::panic::resume_unwind(error.into_panic()),
                }
            }
            Threads::Gentle(jobs) => {
                let (sender, receiver) = oneshot::channel();
                let job = move || {
                    let _ = sender.send(catch_unwind(AssertUnwindSafe(section)));
                };
                // The thread ends only when no pool is left to send to it, and no job panics.
                jobs.send(Box::new(job)).expect("the thread takes jobs");
                match receiver.await.expect("the thread does every job") {
                    Ok(result) => result,
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn a_panic_ends_only_its_task() {
        let handle = spawn("test", async { panic!("on purpose") });
        assert!(handle.await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn work_that_panics_begins_anew_until_it_or_the_server_ends() {
        for panics in [3, usize::MAX] {
            let (shutdown, begun) = (Shutdown::new(), Arc::new(AtomicUsize::new(0)));
            let counted = begun.clone();
            let task = keep_running("test", &shutdown, move || {
                let counted = counted.clone();
                async move {
                    let before = counted.fetch_add(1, Ordering::SeqCst);
                    tokio::task::yield_now().await;
                    assert!(before >= panics, "on purpose");
                }
            });
            tokio::time::sleep(AGAIN_FIRST * 8).await;
            assert_eq!(
                begun.load(Ordering::SeqCst),
                4,
                "at first, and after 1, 2 and 4 seconds"
            );
            if panics == usize::MAX {
                tokio::time::sleep(AGAIN_LONGEST * 100).await;
                assert!(begun.load(Ordering::SeqCst) < 120, "the pauses grow");
                shutdown.trigger();
            }
            assert!(task.await.is_ok());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_panic_long_after_the_last_is_a_first_one() {
        let (shutdown, begun) = (Shutdown::new(), Arc::new(AtomicUsize::new(0)));
        let counted = begun.clone();
        let task = keep_running("test", &shutdown, move || {
            let counted = counted.clone();
            async move {
                counted.fetch_add(1, Ordering::SeqCst);
                tokio::time::sleep(AGAIN_FORGOTTEN).await;
                panic!("on purpose");
            }
        });
        tokio::time::sleep((AGAIN_FORGOTTEN + AGAIN_FIRST) * 5 + AGAIN_FIRST).await;
        assert_eq!(begun.load(Ordering::SeqCst), 6);
        shutdown.trigger();
        assert!(task.await.is_ok());
    }

    #[tokio::test]
    async fn a_step_that_panics_gives_nothing() {
        assert_eq!(caught("test", async { 1 }).await, Some(1));
        assert_eq!(caught_now("test", || 1), Some(1));
        let panics = async {
            tokio::task::yield_now().await;
            panic!("on purpose")
        };
        assert_eq!(caught::<u8>("test", panics).await, None);
        assert_eq!(caught_now::<u8>("test", || panic!("on purpose")), None);
    }

    #[test]
    fn only_what_may_pass_stays_a_failure() {
        let came_to = |outcome| pass_over("test", outcome, |error| *error == "later", "nothing");
        assert_eq!(came_to(Some(Ok(1))), Ok(Some(1)));
        assert_eq!(came_to(Some(Err("later"))), Err("later"));
        assert_eq!(came_to(Some(Err("never"))), Ok(None));
        assert_eq!(came_to(None), Ok(None));
    }

    #[tokio::test(start_paused = true)]
    async fn a_chore_that_panics_is_done_again() {
        let (shutdown, owner) = (Shutdown::new(), Arc::new(AtomicUsize::new(0)));
        let chore = |owner: Arc<AtomicUsize>| async move {
            owner.fetch_add(1, Ordering::SeqCst);
            panic!("on purpose");
        };
        let task = repeat("chore", Rhythm::every(AGAIN_FIRST), &shutdown, &owner, chore);
        tokio::time::sleep(AGAIN_FIRST * 7 / 2).await;
        assert_eq!(owner.load(Ordering::SeqCst), 3);
        shutdown.trigger();
        assert!(task.await.is_ok());
    }

    #[tokio::test]
    async fn shutdown_reaches_early_and_late_waiters() {
        let shutdown = Shutdown::new();
        let early = shutdown.clone();
        let waiter = spawn("waiter", async move { early.wait().await });
        assert!(!shutdown.is_triggered());
        shutdown.trigger();
        assert!(waiter.await.is_ok());
        shutdown.wait().await;
        assert!(shutdown.is_triggered());
    }

    #[tokio::test(start_paused = true)]
    async fn a_chore_ends_with_its_owner_and_with_the_server() {
        const FIRST: Duration = Duration::from_secs(60);
        for stops in [true, false] {
            let (shutdown, owner) = (Shutdown::new(), Arc::new(AtomicUsize::new(0)));
            let chore = |owner: Arc<AtomicUsize>| async move {
                owner.fetch_add(1, Ordering::SeqCst);
            };
            let rhythm = Rhythm::daily(FIRST);
            let task = repeat("chore", rhythm, &shutdown, &owner, chore);
            for done in 0..3 {
                assert_eq!(owner.load(Ordering::SeqCst), done);
                let pause = if done == 0 { rhythm.first } else { rhythm.pause };
                tokio::time::sleep(pause + Duration::from_secs(1)).await;
            }
            match stops {
                true => shutdown.trigger(),
                false => drop(owner),
            }
            assert!(task.await.is_ok());
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn the_pool_is_bounded() {
        static RUNNING: AtomicUsize = AtomicUsize::new(0);
        static MOST: AtomicUsize = AtomicUsize::new(0);
        let pool = Pool::new(2);
        let jobs: Vec<_> = (0..8usize)
            .map(|i| {
                let pool = pool.clone();
                spawn("job", async move {
                    let result = pool.run(move || {
                        MOST.fetch_max(RUNNING.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        std::thread::yield_now();
                        RUNNING.fetch_sub(1, Ordering::SeqCst);
                        i * 2
                    });
                    assert_eq!(result.await, i * 2);
                })
            })
            .collect();
        for job in jobs {
            assert!(job.await.is_ok());
        }
        assert!(MOST.load(Ordering::SeqCst) <= 2);
    }

    #[tokio::test]
    async fn a_gentle_section_has_its_result_and_its_panic_in_the_caller() {
        let pool = Pool::new(1).gentle("gentle").expect("a thread");
        let here = std::thread::current().id();
        let ran_on = pool.run(|| std::thread::current().id()).await;
        assert_ne!(ran_on, here);
        let nice = |by| rustix::process::nice(by).expect("a thread may ask");
        let own = nice(0);
        assert!(pool.run(move || nice(0)).await > own);
        assert_eq!(nice(0), own, "only the pool's thread is gentle");
        let panicking = pool.clone();
        let caller = spawn(
            "caller",
            async move { panicking.run(|| panic!("on purpose")).await },
        );
        assert!(caller.await.is_ok(), "the supervised caller saw the panic");
        assert_eq!(pool.run(|| 7).await, 7, "the thread goes on");
        let inline = Pool::inline().gentle("gentle").expect("no thread is needed");
        assert_eq!(inline.run(|| std::thread::current().id()).await, here);
    }

    #[tokio::test]
    async fn the_inline_pool_stays_on_the_thread() {
        let here = std::thread::current().id();
        assert_eq!(
            Pool::inline().run(move || std::thread::current().id()).await,
            here
        );
    }
}
