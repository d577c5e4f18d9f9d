//! A task on a thread and a runtime of its own, for what must keep its time whatever else the process does.

use core::future::Future;
use std::{io, thread};

use tokio::{runtime::Builder, sync::oneshot};

/// Runs what `task` gives on a new thread of that name, and gives what came of it. What it spawns lives
/// there too, and ends with it. The thread goes on if this future is dropped.
///
/// # Errors
///
/// If there is no thread to be had, or the task panicked.
pub async fn apart<F, T>(name: &str, task: impl FnOnce() -> F + Send + 'static) -> io::Result<T>
where
    F: Future<Output = T>,
    T: Send + 'static,
{
    let (ended, end) = oneshot::channel();
    let name = name.to_owned();
    // The runtime is made there: here, where another one runs, it must not be dropped, as it would be
    // if there were no thread to be had.
    thread::Builder::new().name(name).spawn(move || {
        let ran = Builder::new_current_thread().enable_all().build();
        let ran = ran.map(|runtime| {
            let ran = runtime.block_on(task());
            // A name that is being looked up is not waited for.
            runtime.shutdown_background();
            ran
        });
        let _nobody_waits = ended.send(ran);
    })?;
    let panicked = |_| {
        io::Error::other("its thread has ended, which is a bug: please report what stands above")
    };
    end.await.map_err(panicked)?
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// The caller's runtime has one thread, and it waits: the task goes on all the same.
    #[tokio::test]
    async fn who_blocks_here_does_not_block_it() {
        let (tell, told) = mpsc::channel();
        let running = tokio::spawn(apart("apart", move || async move {
            for i in 0..3 {
                tokio::task::yield_now().await;
                let _nobody_listens = tell.send(i);
            }
            thread::current().name().map(str::to_owned)
        }));
        tokio::task::yield_now().await;
        for i in 0..3 {
            assert_eq!(told.recv(), Ok(i)); // no await: nothing else runs on this runtime
        }
        assert_eq!(running.await.unwrap().unwrap().as_deref(), Some("apart"));
    }

    #[tokio::test]
    async fn a_panic_there_is_an_error_here() {
        let ended = apart("apart", || async { panic!("on purpose") });
        let ended: io::Result<()> = ended.await;
        assert!(ended.unwrap_err().to_string().contains("a bug"));
    }
}
