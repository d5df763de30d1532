//! Two processes with a GPU each: what only such a machine shows. Ignored where nobody asks for it.

use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use candle_core::Device;

use super::Nccl;
use crate::Collective;
use crate::tree::Tree;

const WORKERS: usize = 2;
/// What tells a process that this test has started which worker it is, and where the file is.
const RANK: &str = "SNN_TRAIN_NCCL_RANK";
const FILE: &str = "SNN_TRAIN_NCCL_FILE";
const LIMIT: Duration = Duration::from_secs(120);

#[test]
#[ignore = "needs two GPUs and NCCL"]
fn gpu_workers_speak() {
    match (std::env::var(RANK), std::env::var(FILE)) {
        (Ok(rank), Ok(file)) => speak(rank.parse().unwrap(), Path::new(&file)),
        _ => start(),
    }
}

/// Starts the workers, and ends all of them where one fails or takes too long.
fn start() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("id");
    let worker = |rank: usize| {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--ignored", "--exact", "--nocapture", "collective::nccl::tests::gpu_workers_speak"]);
        command.env(RANK, rank.to_string()).env(FILE, &file).spawn().unwrap()
    };
    let mut workers: Vec<Child> = (0..WORKERS).map(worker).collect();
    let begin = Instant::now();
    loop {
        let ended: Vec<_> = workers.iter_mut().map(|worker| worker.try_wait().unwrap()).collect();
        let failed = ended.iter().flatten().any(|status| !status.success());
        if failed || begin.elapsed() > LIMIT {
            workers.iter_mut().for_each(|worker| worker.kill().unwrap());
            panic!("workers that failed, or have not ended in {LIMIT:?}: {ended:?}");
        }
        if ended.iter().all(Option::is_some) {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(!file.exists(), "worker 0 removes the file");
}

fn speak(rank: usize, file: &Path) {
    let device = Device::new_cuda(rank).unwrap();
    let workers = Nccl::by_file(&device, rank, WORKERS, file, LIMIT).unwrap();
    assert_eq!((workers.rank(), workers.size()), (rank, WORKERS));
    for length in [0, 1, 7, 1 << 20] {
        let message: Vec<u8> = (0..length).map(|i| (i % 251) as u8).collect();
        let own = if rank == 0 { message.clone() } else { vec![1; 3] };
        assert_eq!(workers.broadcast(own).unwrap(), message);
        // There and back.
        if rank == 0 {
            workers.send(1, &message).unwrap();
        }
        assert_eq!(workers.receive(1 - rank).unwrap(), message);
        if rank == 1 {
            workers.send(0, &message).unwrap();
        }
    }
    let tree = Tree { workers: &workers, shards: 5 };
    let parts = tree.own().map(|shard| shard.to_string()).collect();
    assert_eq!(tree.sum::<String>(parts).unwrap(), "(((01)(23))4)");
    assert!(workers.send(rank, &[]).unwrap_err().to_string().contains("no worker"));
    workers.barrier().unwrap();
    // What is last under way arrives before anyone cuts it off.
    std::thread::sleep(Duration::from_secs(1));
}
