//! Pods of a service mesh. In: a pod, and whether its namespace has a mesh. Out: operations that let the kubelet's calls reach the sidecar's port. Left to others:
//! everything else about meshes.
//!
//! A proxy that demands mutual TLS refuses the kubelet's plain calls, so the hold would fail and the worker get its TERM at once. Each mesh has its own way
//! to leave a port out. It is an annotation, which the mesh's injector (where it comes after us) or its CNI plugin reads; where the injector was first, it
//! has already written the ports into the arguments of its init container (istio: `-d`, manifests/charts/istio-control/istio-discovery/files/
//! injection-template.yaml; linkerd: `--inbound-ports-to-ignore`, charts/partials/templates/_proxy-init.tpl; kuma: `--exclude-inbound-ports`,
//! pkg/plugins/runtime/k8s/webhooks/injector), and they are added there.

use crate::Meshes;
use crate::ops::Ops;
use crate::pod::{array, array_of, name};
use qscaler_core::names::sidecar::PORT;
use serde_json::{Value, json};

/// Proxies of service meshes, which must start before and end after our sidecar.
pub(crate) const PROXIES: &[&str] = &["istio-proxy", "linkerd-proxy", "kuma-sidecar", "consul-dataplane"];

struct Mesh {
    /// Ports that the proxy leaves alone, comma-separated.
    annotation: &'static str,
    init: &'static str,
    option: &'static str,
    proxy: &'static str,
    /// What a pod says to get a proxy: labels or annotations.
    asks: &'static [&'static str],
    /// Their values that mean no.
    declines: &'static [&'static str],
}

const ISTIO: Mesh = Mesh {
    annotation: "traffic.sidecar.istio.io/excludeInboundPorts",
    init: "istio-init",
    option: "-d",
    proxy: "istio-proxy",
    asks: &["sidecar.istio.io/inject", "istio.io/rev"],
    declines: &["false"],
};
const LINKERD: Mesh = Mesh {
    annotation: "config.linkerd.io/skip-inbound-ports",
    init: "linkerd-init",
    option: "--inbound-ports-to-ignore",
    proxy: "linkerd-proxy",
    asks: &["linkerd.io/inject"],
    declines: &["disabled"],
};

const KUMA: Mesh = Mesh {
    annotation: "traffic.kuma.io/exclude-inbound-ports",
    init: "kuma-init",
    option: "--exclude-inbound-ports",
    proxy: "kuma-sidecar",
    asks: &["kuma.io/sidecar-injection"],
    declines: &["disabled", "false"],
};

/// Lets the port be, in each mesh that the pod is in.
pub(crate) fn exclude_port(pod: &Value, ops: &mut Ops<'_>, of_namespace: Meshes) {
    for (mesh, of_namespace) in [(ISTIO, of_namespace.istio), (LINKERD, of_namespace.linkerd), (KUMA, of_namespace.kuma)] {
        if mesh.is_in(pod, of_namespace) {
            mesh.exclude_port(pod, ops);
        }
    }
}

impl Mesh {
    fn is_in(&self, pod: &Value, of_namespace: bool) -> bool {
        let proxied = ["initContainers", "containers"].into_iter().any(|list| array(pod, list).iter().any(|c| name(c) == self.proxy));
        let said = ["labels", "annotations"].into_iter().filter_map(|kind| pod.get("metadata")?.get(kind));
        let said = said.flat_map(|words| self.asks.iter().filter_map(|key| words.get(*key)?.as_str())).next();
        proxied || said.map_or(of_namespace, |word| !self.declines.contains(&word))
    }

    fn exclude_port(&self, pod: &Value, ops: &mut Ops<'_>) {
        let said = pod.pointer("/metadata/annotations").and_then(|a| a.get(self.annotation)).and_then(Value::as_str);
        if let Some(ports) = with_port(said.unwrap_or_default()) {
            ops.set(&["metadata", "annotations", self.annotation], json!(ports));
        }
        for (i, init) in array(pod, "initContainers").iter().enumerate().filter(|(_, c)| name(c) == self.init) {
            if let Some((at, argument)) = self.argument(array_of(init, "args")) {
                ops.replace(&["spec", "initContainers", &i.to_string(), "args", &at.to_string()], json!(argument));
            }
        }
    }

    /// The argument that lists the ports, with ours in it: what follows the option, or what stands behind its `=`.
    fn argument(&self, arguments: &[Value]) -> Option<(usize, String)> {
        let text = |at: usize| arguments.get(at).and_then(Value::as_str);
        (0..arguments.len()).find_map(|at| match text(at)?.strip_prefix(self.option)? {
            "" => Some((at + 1, with_port(text(at + 1)?)?)),
            rest => Some((at, format!("{}={}", self.option, with_port(rest.strip_prefix('=')?)?))),
        })
    }
}

/// A list of ports and ranges with ours in it; None: it is there already.
fn with_port(ports: &str) -> Option<String> {
    let covers = |item: &str| match item.split_once('-') {
        Some((from, to)) => from.trim().parse().is_ok_and(|from: u16| from <= PORT) && to.trim().parse().is_ok_and(|to: u16| PORT <= to),
        None => item == "*" || item.parse() == Ok(PORT),
    };
    let items: Vec<&str> = ports.split(',').map(str::trim).filter(|item| !item.is_empty()).collect();
    if items.iter().any(|item| covers(item)) {
        return None;
    }
    Some(items.into_iter().map(str::to_owned).chain([PORT.to_string()]).collect::<Vec<_>>().join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_is_added_to_a_list_once() {
        for (ports, with) in [
            ("", Some("14191")),
            ("8080, 9090", Some("8080,9090,14191")),
            ("14191", None),
            ("14000-15000", None),
            ("*", None),
            ("1-2,x", Some("1-2,x,14191")),
        ] {
            assert_eq!(with_port(ports).as_deref(), with, "{ports}");
        }
    }

    #[test]
    fn the_port_is_added_where_an_init_container_was_told_the_others() {
        let of = |arguments: Value| KUMA.argument(arguments.as_array().unwrap());
        let option = "--exclude-inbound-ports";
        assert_eq!(of(json!(["--verbose", option, ""])), Some((2, "14191".to_owned())));
        assert_eq!(of(json!([option, "80", "x"])), Some((1, "80,14191".to_owned())));
        assert_eq!(of(json!(["--exclude-inbound-ports=80"])), Some((0, "--exclude-inbound-ports=80,14191".to_owned())));
        for none in [json!([]), json!([option]), json!([7, "x"]), json!([option, "14191"]), json!(["--exclude-inbound-ports-for-uids=1"])] {
            assert_eq!(of(none.clone()), None, "{none}");
        }
    }

    #[test]
    fn a_pods_own_word_wins_over_its_namespaces_and_a_proxy_that_is_there_over_both() {
        let is_in = |pod: &Value, of_namespace| (ISTIO.is_in(pod, of_namespace), LINKERD.is_in(pod, of_namespace));
        assert!(KUMA.is_in(&json!({"metadata": {"labels": {"kuma.io/sidecar-injection": "enabled"}}}), false));
        assert!(!KUMA.is_in(&json!({"metadata": {"labels": {"kuma.io/sidecar-injection": "disabled"}}}), true));
        assert_eq!(is_in(&json!({}), false), (false, false));
        assert_eq!(is_in(&json!({}), true), (true, true));
        assert_eq!(is_in(&json!({"metadata": {"labels": {"sidecar.istio.io/inject": "false"}}}), true), (false, true));
        assert_eq!(is_in(&json!({"metadata": {"annotations": {"linkerd.io/inject": "enabled"}}}), false), (false, true));
        assert_eq!(is_in(&json!({"spec": {"containers": [{"name": "istio-proxy"}]}}), false), (true, false));
    }
}
