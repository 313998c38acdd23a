//! The sending end towards receivers that behave unusually.

use futures_util::StreamExt as _;

use super::*;

/// A tree of files that all hold one byte.
struct Many(u32);

impl SourceTree for Many {
    fn walk(&self, each: &mut dyn FnMut(TreeEntry) -> Result<(), Error>) -> Result<(), Error> {
        (0..self.0).try_for_each(|number| {
            each(TreeEntry {
                path: format!("f{number:06}"),
                mode: 0o100_644,
                uid: 0,
                gid: 0,
                size: 1,
                mtime: 0,
                link: String::new(),
                device: (0, 0),
                xattrs: Vec::new(),
            })
        })
    }

    fn open(&self, _: &str) -> Result<Option<SourceFile>, Error> {
        Ok(Some(Box::new(&b"x"[..])))
    }
}

fn packet(kind: PacketType, id: u32) -> Packet {
    Packet { r#type: kind as i32, id, ..Packet::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_are_taken_while_nobody_reads_content() {
    const FILES: u32 = 5000;
    let (requests, incoming) = mpsc::channel(1);
    let (outgoing, answers) = mpsc::channel(1);
    let mut answers = Box::pin(crate::files::stream(answers));
    let serving = tokio::spawn(serve_tree(Arc::new(Many(FILES)), incoming, outgoing));
    for _ in 0..=FILES {
        let announced = answers.next().await.unwrap();
        assert_eq!(announced.r#type, PacketType::PacketStat as i32);
    }

    let all = async {
        for id in 0..FILES {
            requests.send(Batch::of(packet(PacketType::PacketReq, id))).await.unwrap();
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(30), all)
        .await
        .expect("requests are taken without a byte of content having been read");

    let (mut ended, mut bytes) = (0, 0);
    while ended < FILES {
        let answer = answers.next().await.unwrap();
        assert_eq!(answer.r#type, PacketType::PacketData as i32);
        bytes += answer.data.len();
        ended += u32::from(answer.data.is_empty());
    }
    assert_eq!(bytes, FILES as usize);
    requests.send(Batch::of(packet(PacketType::PacketFin, 0))).await.unwrap();
    assert_eq!(answers.next().await.unwrap().r#type, PacketType::PacketFin as i32);
    serving.await.unwrap().unwrap();
}
