use super::*;

#[tokio::test]
async fn a_client_that_types_to_the_end_reads_the_end_of_the_output() {
    let (mut client, server) = UnixStream::pair().unwrap();
    client.write_all(b"typed before").await.unwrap();
    let conversation = tokio::spawn(async move {
        let (from_client, mut to_client) = tokio::io::split(server);
        to_client.write_all(b"output").await.unwrap();
        part(from_client, to_client).await;
    });
    let mut output = Vec::new();
    client.read_to_end(&mut output).await.unwrap();
    assert_eq!(output, b"output");
    client.write_all(b"typed after").await.unwrap();
    client.shutdown().await.unwrap();
    conversation.await.unwrap();
}
