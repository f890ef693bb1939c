//! Certificates of a local cluster. In: the node's name. Out: a folder of PEM files, and kubeconfigs that hold theirs inline.
//! It leaves trust to the cluster: everything here lives as long as the box.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose};

/// One certificate to issue.
struct Wanted {
    file: &'static str,
    common_name: String,
    organization: Option<&'static str>,
    names: Vec<String>,
}

/// Keys and certificates in a folder: `ca`, `apiserver`, `admin`, `kubelet-client`, `controllers`, `scheduler`, `node`, `proxy`
/// (`.crt` and `.key` each) and the service accounts' key `sa.key`, `sa.pub`.
#[derive(Clone, Debug)]
pub struct Pki {
    folder: PathBuf,
}

impl Pki {
    /// Makes everything anew. `host_ip` is the node's address, `service_ip` the first of the service range.
    ///
    /// # Errors
    /// A key cannot be made or a file not written.
    pub fn create(folder: &Path, node: &str, host_ip: &str, service_ip: &str) -> Result<Self> {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let pki = Self { folder: folder.to_path_buf() };
        let authority = pki.authority()?;
        let server = ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local", "localhost"];
        let server = server.into_iter().chain(["127.0.0.1", host_ip, service_ip]).map(str::to_owned).collect();
        let wanted = |file, common_name: &str, organization, names| Wanted { file, common_name: common_name.to_owned(), organization, names };
        for certificate in [
            wanted("apiserver", "kube-apiserver", None, server),
            wanted("admin", "admin", Some("system:masters"), Vec::new()),
            wanted("kubelet-client", "apiserver-kubelet-client", Some("system:masters"), Vec::new()),
            wanted("controllers", "system:kube-controller-manager", None, Vec::new()),
            wanted("scheduler", "system:kube-scheduler", None, Vec::new()),
            wanted("proxy", "system:kube-proxy", None, Vec::new()),
            wanted("node", &format!("system:node:{node}"), Some("system:nodes"), vec![node.to_owned(), host_ip.to_owned()]),
        ] {
            pki.issue(&authority, certificate)?;
        }
        let accounts = KeyPair::generate().context("cannot make a key")?;
        pki.write("sa.key", &accounts.serialize_pem())?;
        pki.write("sa.pub", &accounts.public_key_pem())?;
        Ok(pki)
    }

    fn authority(&self) -> Result<Issuer<'static, KeyPair>> {
        let key = KeyPair::generate().context("cannot make a key")?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "qscaler-local");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let certificate = params.self_signed(&key).context("cannot sign the authority")?;
        self.write("ca.crt", &certificate.pem())?;
        self.write("ca.key", &key.serialize_pem())?;
        Ok(Issuer::new(params, key))
    }

    fn issue(&self, authority: &Issuer<'static, KeyPair>, wanted: Wanted) -> Result<()> {
        let key = KeyPair::generate().context("cannot make a key")?;
        let mut params = CertificateParams::new(wanted.names).context("a name in a certificate is no DNS name")?;
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, wanted.common_name);
        if let Some(organization) = wanted.organization {
            params.distinguished_name.push(DnType::OrganizationName, organization);
        }
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        let certificate = params.signed_by(&key, authority).with_context(|| format!("cannot sign {}", wanted.file))?;
        self.write(&format!("{}.crt", wanted.file), &certificate.pem())?;
        self.write(&format!("{}.key", wanted.file), &key.serialize_pem())
    }

    fn write(&self, file: &str, text: &str) -> Result<()> {
        use std::os::unix::fs::PermissionsExt;
        let path = self.folder.join(file);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).with_context(|| format!("cannot change {}", path.display()))
    }

    /// A kubeconfig for one of the clients, with its certificate and key inline.
    ///
    /// # Errors
    /// Its files cannot be read.
    pub fn kubeconfig(&self, client: &str, cluster: &str, port: u16) -> Result<String> {
        let read = |file: String| {
            let path = self.folder.join(file);
            fs::read(&path).map(|bytes| STANDARD.encode(bytes)).with_context(|| format!("cannot read {}", path.display()))
        };
        let (ca, certificate, key) = (read("ca.crt".into())?, read(format!("{client}.crt"))?, read(format!("{client}.key"))?);
        Ok(format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: {cluster}\n\
             contexts:\n- {{name: {cluster}, context: {{cluster: {cluster}, user: {client}}}}}\n\
             clusters:\n- name: {cluster}\n  cluster: {{server: \"https://127.0.0.1:{port}\", certificate-authority-data: {ca}}}\n\
             users:\n- name: {client}\n  user: {{client-certificate-data: {certificate}, client-key-data: {key}}}\n"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kubeconfig_carries_its_certificate_and_the_port() {
        let folder = tempfile::tempdir().unwrap();
        let pki = Pki::create(folder.path(), "node", "10.77.0.1", "10.96.0.1").unwrap();
        let text = pki.kubeconfig("admin", "local", 4711).unwrap();
        let inline = STANDARD.encode(fs::read(folder.path().join("admin.crt")).unwrap());
        assert!(text.contains("https://127.0.0.1:4711") && text.contains(&inline), "{text}");
    }

    #[test]
    fn every_key_is_readable_by_its_owner_only() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        Pki::create(folder.path(), "node", "10.77.0.1", "10.96.0.1").unwrap();
        for file in fs::read_dir(folder.path()).unwrap().flatten() {
            assert_eq!(file.metadata().unwrap().permissions().mode() & 0o077, 0, "{:?}", file.path());
        }
    }
}
