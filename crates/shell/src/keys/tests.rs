//! Keys across restarts, kills and front ends.

use super::*;

const NETWORK: NetworkId = NetworkId([1; 32]);

fn about() -> About {
    About {
        role: Role::Mix,
        address: "127.0.0.1:9000".to_owned(),
        family: "nobody".to_owned(),
        check: proto::directory::SelfCheck::new(sphinx::Path::Portable, 1, 1),
    }
}

#[test]
fn keys_outlive_the_process() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("state");
    let open = || Keys::open(StateDir::open(&path).unwrap()).unwrap();
    let keys = open();
    let (id, link) = (keys.id(), keys.link().clone());
    assert_ne!(keys.identity(), &link);
    drop(keys);
    let keys = open();
    assert_eq!((keys.id(), keys.link()), (id, &link));
    drop(keys);
    std::fs::write(path.join("link"), b"short").unwrap();
    let damaged = Keys::open(StateDir::open(&path).unwrap());
    assert!(matches!(damaged, Err(StateError::DamagedKey { .. })));
}

/// EPO-5: killed between its zeros and its end, an erasure is finished by whoever looks for the key;
/// the secret of zeros is nobody's, and its public key is never said.
#[test]
fn a_half_erased_key_is_none() {
    let root = tempfile::tempdir().unwrap();
    let keys = Keys::open(StateDir::open(&root.path().join("state")).unwrap()).unwrap();
    let say = || {
        let said = keys.descriptor(&NETWORK, &about(), 0, &Params::default(), 1_000_000);
        said.unwrap().verify(&NETWORK).unwrap().packet_keys
    };
    let before = say();
    for epoch in [0, 1] {
        keys.state().blank(&file_of(Epoch(epoch))).unwrap();
    }
    assert!(keys.packet_secret(Epoch(0)).unwrap().is_none());
    assert!(!keys.state().path(&file_of(Epoch(0))).exists());
    let zeros = SecretKey::from_bytes([0; 32]).public();
    let after = say();
    assert!(!after.contains(&zeros) && after[1] != before[1]);
    assert_eq!(after[2..], before[2..]);
}

/// Neither is zeros where no erasure is ever half done, nor is what has another length; each is told
/// with its own remedy.
#[test]
fn what_is_no_key_is_told_with_the_remedy() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("state");
    let open = || Keys::open(StateDir::open(&path).unwrap());
    open().unwrap().follow_a_chain().unwrap();
    for (name, remedy) in [
        ("identity", "from a backup"),
        ("link", "remove it"),
        ("packet-keys/chain-0", "another front end"),
    ] {
        let kept = std::fs::read(path.join(name)).unwrap();
        for bad in [&[0; 32][..], b"short"] {
            std::fs::write(path.join(name), bad).unwrap();
            let error = open().unwrap_err().to_string();
            assert!(error.contains(name) && error.contains(remedy), "{error}");
        }
        std::fs::write(path.join(name), kept).unwrap();
    }
    let keys = open().unwrap();
    std::fs::write(path.join("packet-keys/7"), b"short").unwrap();
    let error = keys.packet_secret(Epoch(7)).unwrap_err().to_string();
    assert!(
        error.contains("remove it") && !error.contains("backup"),
        "{error}"
    );
}

/// DIR-3, DIR-4
#[test]
fn a_descriptor_says_the_same_keys_again_and_verifies() {
    let root = tempfile::tempdir().unwrap();
    let keys = Keys::open(StateDir::open(&root.path().join("state")).unwrap()).unwrap();
    let params = Params::default();
    let say = |period| keys.descriptor(&NETWORK, &about(), period, &params, 1_000_000);
    let said = say(3).unwrap().verify(&NETWORK).unwrap();
    assert_eq!(said, say(3).unwrap().verify(&NETWORK).unwrap());
    assert_eq!(said.packet_keys.len(), 16);
    assert_eq!(said.link.link_key, keys.link().verifying_key().to_bytes());
    let third = keys.packet_secret(Epoch(26)).unwrap().unwrap();
    assert_eq!(third.public(), said.packet_keys[2]);
    // The next period's first half is this one's second.
    let next = say(4).unwrap().verify(&NETWORK).unwrap();
    assert_eq!(next.packet_keys[..8], said.packet_keys[8..]);
    assert_eq!(
        keys.epochs().unwrap(),
        (24..48).map(Epoch).collect::<Vec<_>>()
    );

    let nowhere = About {
        address: "nowhere".to_owned(),
        ..about()
    };
    let refused = keys.descriptor(&NETWORK, &nowhere, 3, &params, 1_000_000);
    assert!(matches!(
        refused,
        Err(KeysError::Descriptor(DescriptorError::Address))
    ));
}

/// A node introduces itself to all authorities at once.
#[test]
fn all_who_ask_at_once_are_told_the_same_keys() {
    let root = tempfile::tempdir().unwrap();
    let keys = Keys::open(StateDir::open(&root.path().join("state")).unwrap()).unwrap();
    let (about, params) = (about(), Params::default());
    let say = || {
        keys.descriptor(&NETWORK, &about, 0, &params, 1_000_000)
            .unwrap()
    };
    let said: Vec<_> = std::thread::scope(|scope| {
        let asking: Vec<_> = (0..4).map(|_| scope.spawn(say)).collect();
        asking
            .into_iter()
            .map(|said| said.join().unwrap())
            .collect()
    });
    assert!(said.iter().all(|one| *one == said[0]));
    let kept = keys.packet_secret(Epoch(0)).unwrap().unwrap().public();
    assert_eq!(said[0].verify(&NETWORK).unwrap().packet_keys[0], kept);
}

/// GW-27: front ends say the same keys, without telling each other, and a key that is erased at one
/// can't be had from what is left there.
#[test]
fn front_ends_know_the_same_keys_and_none_of_the_past() {
    let root = tempfile::tempdir().unwrap();
    let open = |name: &str| Keys::open(StateDir::open(&root.path().join(name)).unwrap()).unwrap();
    let one = open("one");
    let params = Params::default();
    let say = |keys: &Keys, period| {
        let said = keys.descriptor(&NETWORK, &about(), period, &params, 1_000_000);
        said.unwrap().verify(&NETWORK).unwrap()
    };
    let before = say(&one, 0).packet_keys;
    one.follow_a_chain().unwrap();
    one.follow_a_chain().unwrap();
    drop(one);
    let copied = ["identity", "link", "packet-keys"];
    let copy = |from: &str, to: &str| {
        let done = std::process::Command::new("cp")
            .arg("-rp")
            .args(copied.map(|name| root.path().join(from).join(name)))
            .arg(root.path().join(to))
            .status();
        assert!(done.unwrap().success());
    };
    drop(open("two"));
    copy("one", "two");
    let (one, two) = (open("one"), open("two"));
    for keys in [&one, &two] {
        keys.follow_a_chain().unwrap();
        assert_eq!(say(keys, 0).packet_keys, before, "made before");
    }
    assert_eq!(one.id(), two.id());
    let third = say(&one, 3);
    assert_eq!(third, say(&two, 3));
    assert_eq!(third.packet_keys[..8], say(&two, 2).packet_keys[8..]);

    // Erased at one: those before it go, those after it stay, at the other all stay.
    let key = |keys: &Keys, epoch| keys.packet_secret(Epoch(epoch)).unwrap();
    let public = |keys: &Keys, epoch| key(keys, epoch).map(|secret| secret.public());
    one.erase(Epoch(30)).unwrap();
    drop(one);
    let one = open("one");
    for (epoch, kept) in [
        (16, false),
        (29, false),
        (30, false),
        (31, true),
        (39, true),
    ] {
        assert_eq!(public(&one, epoch).is_some(), kept, "{epoch}");
        assert!(public(&two, epoch).is_some());
    }
    assert_eq!(public(&one, 31), public(&two, 31));
    assert_eq!(public(&one, 39), Some(third.packet_keys[15]));
    assert_eq!(one.epochs().unwrap().last(), Some(&Epoch(31)));
    let names = one.state().list("packet-keys").unwrap();
    let chains = names.iter().filter(|name| name.starts_with("chain"));
    assert!(chains.eq(["chain-31"]));

    // Killed before the old one was erased; a liar who would have the chain run for ever.
    drop(one);
    let file = |name: &str, at: &str| root.path().join(name).join("packet-keys").join(at);
    std::fs::copy(file("two", "chain-16"), file("one", "chain-16")).unwrap();
    let one = open("one");
    assert!(public(&one, 30).is_none() && !file("one", "chain-16").exists());
    assert!(public(&one, 32 + AHEAD_MAX).is_none());
}

/// EPO-5
#[test]
fn an_erased_key_is_gone() {
    let root = tempfile::tempdir().unwrap();
    let keys = Keys::open(StateDir::open(&root.path().join("state")).unwrap()).unwrap();
    keys.descriptor(&NETWORK, &about(), 0, &Params::default(), 1_000_000)
        .unwrap();
    keys.erase(Epoch(0)).unwrap();
    assert!(keys.packet_secret(Epoch(0)).unwrap().is_none());
    assert_eq!(keys.epochs().unwrap().first(), Some(&Epoch(1)));
}
