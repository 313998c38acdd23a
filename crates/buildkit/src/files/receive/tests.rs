use std::sync::{Arc, Mutex};

use rorqual_build::TreeEntry;

use super::*;

#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Vec<String>>>);

impl TreeSink for Seen {
    fn entry(&mut self, entry: TreeEntry) -> Result<bool, Error> {
        self.0.lock().unwrap().push(format!("{} {:o}", entry.path, entry.mode));
        Ok(!entry.path.ends_with("known"))
    }
    fn data(&mut self, path: &str, bytes: &[u8]) -> Result<(), Error> {
        self.0.lock().unwrap().push(format!("{path}: {}", String::from_utf8_lossy(bytes)));
        Ok(())
    }
    fn end(&mut self, path: &str) -> Result<(), Error> {
        self.0.lock().unwrap().push(format!("{path} ends"));
        Ok(())
    }
    fn finish(self: Box<Self>) -> Result<(), Error> {
        self.0.lock().unwrap().push("done".to_owned());
        Ok(())
    }
}

fn stat(path: &str, mode: u32) -> Packet {
    let stat = Stat { path: path.to_owned(), mode, size: 3, ..Stat::default() };
    Packet { r#type: PacketType::PacketStat as i32, stat: Some(stat), ..Packet::default() }
}

fn last() -> Packet {
    Packet { r#type: PacketType::PacketStat as i32, ..Packet::default() }
}

fn data(id: u32, bytes: &[u8]) -> Packet {
    let r#type = PacketType::PacketData as i32;
    Packet { r#type, id, data: bytes.to_vec(), ..Packet::default() }
}

fn wanted(received: Received) -> Option<u32> {
    match received {
        Received::Reply(packet) if packet.r#type == PacketType::PacketReq as i32 => Some(packet.id),
        Received::Nothing => None,
        _ => panic!("neither nothing nor a request"),
    }
}

#[test]
fn only_what_is_not_known_travels() {
    let seen = Seen::default();
    let mut receiver = Receiver::new(Box::new(seen.clone()));
    assert_eq!(wanted(receiver.take(stat("d", 0x8000_01ed)).unwrap()), None);
    assert_eq!(wanted(receiver.take(stat("d/known", 0o644)).unwrap()), None);
    assert_eq!(wanted(receiver.take(stat("d/new", 0o644)).unwrap()), Some(2));
    assert_eq!(wanted(receiver.take(data(2, b"abc")).unwrap()), None);
    assert_eq!(wanted(receiver.take(last()).unwrap()), None);
    let Received::Reply(fin) = receiver.take(data(2, b"")).unwrap() else { panic!("no end") };
    assert_eq!(fin.r#type, PacketType::PacketFin as i32);
    assert!(matches!(receiver.take(fin).unwrap(), Received::Finished));
    let seen = seen.0.lock().unwrap().join(", ");
    assert_eq!(seen, "d 40755, d/known 100644, d/new 100644, d/new: abc, d/new ends, done");
}

#[test]
fn an_empty_directory_ends_at_once() {
    let mut receiver = Receiver::new(Box::new(Seen::default()));
    assert!(matches!(receiver.take(last()).unwrap(), Received::Reply(_)));
}

#[test]
fn what_nobody_asked_for_is_refused() {
    for wrong in [data(0, b"abc"), data(9, b""), Packet { r#type: 77, ..Packet::default() }] {
        let mut receiver = Receiver::new(Box::new(Seen::default()));
        receiver.take(stat("known", 0o644)).unwrap();
        assert!(receiver.take(wrong).is_err());
    }
}

#[test]
fn content_without_end_is_refused() {
    let mut receiver = Receiver::new(Box::new(Seen::default()));
    receiver.take(stat("a", 0o644)).unwrap();
    let piece = vec![0; 1 << 20];
    let refused = (0..100).find_map(|_| receiver.take(data(0, &piece)).err());
    assert!(refused.unwrap().to_string().contains("grew"));
}

#[test]
fn an_early_end_and_late_entries_are_refused() {
    let fin = Packet { r#type: PacketType::PacketFin as i32, ..Packet::default() };
    let mut receiver = Receiver::new(Box::new(Seen::default()));
    receiver.take(stat("a", 0o644)).unwrap();
    assert!(receiver.take(fin).is_err());
    let mut receiver = Receiver::new(Box::new(Seen::default()));
    receiver.take(last()).unwrap();
    assert!(receiver.take(stat("a", 0o644)).is_err());
}

#[test]
fn the_senders_own_error_is_told() {
    let mut receiver = Receiver::new(Box::new(Seen::default()));
    let r#type = PacketType::PacketErr as i32;
    let packet = Packet { r#type, data: b"permission denied".to_vec(), ..Packet::default() };
    let error = receiver.take(packet).err().unwrap();
    assert_eq!(error.to_string(), "error from sender: permission denied");
}
