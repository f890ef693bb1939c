//! Certificates as people have them: an authority of one's own, clients that must show one, a host that the certificate does not name. In: Redis and
//! RabbitMQ that speak TLS with certificates made here. Out: which URLs work, and what the others are told.

use super::{DEADLINE, address, order, query};
use qscaler_broker::signing::Signer;
use qscaler_broker::{BrokerError, Retry, open_control, open_receiver, open_stats};
use qscaler_broker_url::{Secret, TlsMaterial, attach};
use qscaler_tests::servers::{RabbitServer, RedisServer, TlsFiles, free_port};
use qscaler_tests::wait::wait_for;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use std::path::Path;

/// A name that the server's certificate has; 127.0.0.1 it has too, `localhost` it has not.
const NAME: &str = "broker.test";

struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let pem = params.self_signed(&key).unwrap().pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    /// Certificate and key.
    fn issue(&self, names: &[&str]) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap();
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }

    fn material(&self) -> TlsMaterial {
        TlsMaterial { ca: Some(self.pem.clone()), ..TlsMaterial::default() }
    }

    fn with_client(&self, of: &Self) -> TlsMaterial {
        let (certificate, key) = of.issue(&["client.test"]);
        TlsMaterial { certificate: Some(certificate), key: Some(Secret::from(key)), ..self.material() }
    }

    fn files(&self, folder: &Path, clients: bool) -> TlsFiles {
        let (certificate, key) = self.issue(&[NAME, "127.0.0.1"]);
        let write = |name: &str, text: &str| {
            let path = folder.join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        TlsFiles { ca: write("ca.pem", &self.pem), certificate: write("server.pem", &certificate), key: write("key.pem", &key), clients }
    }
}

/// What must be true of a URL: it works whole, or fails with these words, for good.
async fn check(url: &str, material: &TlsMaterial, fails_with: Option<&str>) {
    let url = attach(url, material, None);
    let work = async {
        let (stats, control) = (open_stats(&url)?, open_control(&url, Signer::default())?);
        stats.sample(&[query("celery", "q")]).await?;
        let orders = address("tls");
        control.declare(&orders).await?;
        let mut receiver = open_receiver(&url, &orders, "a")?;
        control.publish(&orders, &order(1, None)).await?;
        let delivery = receiver.take(true, DEADLINE).await?.expect("the message");
        receiver.ack(delivery).await
    };
    let result: Result<(), BrokerError> = work.await;
    match fails_with {
        None => result.unwrap(),
        Some(words) => {
            let error = result.unwrap_err();
            assert!(error.to_string().contains(words), "{error}");
            assert_eq!(error.retry, Retry::AfterChange, "{error}");
            assert!(!error.to_string().contains("PRIVATE") && !error.to_string().contains("s3cret"), "{error}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_with_a_private_authority() {
    let (ours, other, folder) = (Authority::new("ours"), Authority::new("other"), tempfile::tempdir().unwrap());
    let server = RedisServer::start_tls(Some("s3cret"), ours.files(folder.path(), false)).unwrap();
    let url = server.url(1);
    let none = TlsMaterial::default();
    check(&url, &ours.material(), None).await;
    check(&url, &none, Some("qscaler.dev/broker-tls")).await;
    check(&url, &other.material(), Some("no authority that is known")).await;
    check(&format!("{url}?ssl_ca_certs=/etc/ca.pem"), &none, Some("only the worker's container has")).await;
    check(&format!("{url}?ssl_cert_reqs=none"), &none, None).await;
    check(&format!("{url}?ssl_cert_reqs=CERT_NONE"), &other.material(), None).await;
    let by_name = url.replace("127.0.0.1", "localhost");
    check(&by_name, &ours.material(), Some("for another host")).await;
    check(&format!("{by_name}?ssl_check_hostname=false"), &ours.material(), None).await;
    check(&format!("{by_name}?ssl_check_hostname=false"), &other.material(), Some("no authority that is known")).await;
    check(&url, &TlsMaterial { ca: Some("nonsense".to_owned()), ..none.clone() }, Some("ca.crt holds no certificate")).await;
    check(&url, &TlsMaterial { certificate: Some(ours.pem.clone()), ..ours.material() }, Some("no tls.key")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_that_asks_for_the_client_s_certificate() {
    let (ours, other, folder) = (Authority::new("ours"), Authority::new("other"), tempfile::tempdir().unwrap());
    let server = RedisServer::start_tls(None, ours.files(folder.path(), true)).unwrap();
    let url = server.url(0);
    check(&url, &ours.with_client(&ours), None).await;
    check(&url, &ours.material(), Some("asks for a client's certificate")).await;
    check(&url, &ours.with_client(&other), Some("does not accept the client's certificate")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rabbitmq_with_a_private_authority_and_client_certificates() {
    let (ours, other, folder) = (Authority::new("ours"), Authority::new("other"), tempfile::tempdir().unwrap());
    let files = ours.files(folder.path(), true);
    let local = std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
    let (amqps, api) = (free_port(local).unwrap(), free_port(local).unwrap());
    let (ca, certificate, key) = (files.ca.display(), files.certificate.display(), files.key.display());
    let config = format!(
        "listeners.ssl.1 = 127.0.0.1:{amqps}\nssl_options.cacertfile = {ca}\nssl_options.certfile = {certificate}\nssl_options.keyfile = {key}\n\
         ssl_options.verify = verify_peer\nssl_options.fail_if_no_peer_cert = true\nmanagement.ssl.ip = 127.0.0.1\nmanagement.ssl.port = {api}\n\
         management.ssl.cacertfile = {ca}\nmanagement.ssl.certfile = {certificate}\nmanagement.ssl.keyfile = {key}\n"
    );
    let _server = RabbitServer::start_configured(&config).unwrap();
    let url = format!("amqps://guest:guest@127.0.0.1:{amqps}//");
    let whole = ours.with_client(&ours);
    // Queues are looked at by a passive declare: this one is there for every case.
    let made = open_control(&attach(&url, &whole, None), Signer::default()).unwrap();
    made.declare(&address("tls")).await.unwrap();
    check(&url, &whole, None).await;
    check(&url, &TlsMaterial::default(), Some("qscaler.dev/broker-tls")).await;
    check(&url, &other.with_client(&ours), Some("no authority that is known")).await;
    check(&url, &ours.material(), Some("client's certificate")).await;
    check(&format!("{url}?verify=verify_none"), &TlsMaterial { ca: None, ..whole.clone() }, None).await;
    check(&url.replace("127.0.0.1", "localhost"), &whole, Some("for another host")).await;

    let management = format!("https://127.0.0.1:{api}");
    let stats = open_stats(&attach(&url, &whole, Some(&management))).unwrap();
    wait_for("the API's figures by TLS", DEADLINE, || async {
        let queries = [query("celery", "qscaler.ctl.shop.tls")];
        let (seen, gap) = (stats.sample(&queries).await.unwrap().remove(0), stats.gap(&queries));
        if seen.unacked.is_some() && gap.is_none() { Ok(()) } else { Err(format!("{seen:?} {gap:?}")) }
    })
    .await
    .unwrap();
    // A management API whose certificate is not trusted is a gap with the mend in it, and no failure.
    let api_alone = attach(&format!("{url}?verify=verify_peer"), &other.with_client(&ours), Some(&management));
    let stats = open_stats(
        &api_alone.replace("amqps://", "amqp://").replace(&amqps.to_string(), &_server.url().rsplit_once(':').unwrap().1.replace("/%2f", "")),
    )
    .unwrap();
    let queries = [query("celery", "q")];
    stats.sample(&queries).await.unwrap();
    let gap = stats.gap(&queries);
    assert!(gap.as_deref().is_some_and(|gap| gap.contains("no authority")), "{gap:?}");
}
