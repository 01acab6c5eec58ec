"""Checks of rendered manifests: schema, references, selectors, names of ports, security."""

from render import named, pick

# Fields that custom resources must have; their schemas are not among the linter's.
CUSTOM = {
    "Issuer": [],
    "Certificate": ["secretName", "issuerRef", "usages", "privateKey", "duration", "renewBefore"],
    "SecretStore": ["provider"],
    "ExternalSecret": ["secretStoreRef", "target", "data", "refreshInterval"],
    "ServiceMonitor": ["selector", "endpoints"],
    "PrometheusRule": ["groups"],
}


def check(name, documents, deploy, skipped):
    """Findings in one rendering."""
    yield from shape(documents)
    yield from schema(documents, skipped)
    yield from references(name, documents, externals(deploy))
    yield from selectors(documents)
    yield from ports(documents)
    for workload in pick(documents, "StatefulSet"):
        yield from security(documents, workload)
        yield from availability(documents, workload)
    yield from certificates(documents)


def shape(documents):
    """Names and doubles."""
    seen = set()
    for document in documents:
        key = (document.get("apiVersion"), document.get("kind"), document.get("metadata", {}).get("name"))
        if None in key:
            yield f"{key}: apiVersion, kind and metadata.name are needed"
        if key in seen:
            yield f"{key}: is there twice"
        seen.add(key)


def schema(documents, skipped):
    """Kubernetes' own kinds against its schemas, strictly; others by the fields they must have."""
    try:
        import kubernetes_validate
    except ImportError:
        skipped.add("schemas of Kubernetes (kubernetes-validate could not be installed)")
        return
    for document in documents:
        what = f"{document['kind']} {document['metadata']['name']}"
        try:
            kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)
        except kubernetes_validate.SchemaNotFoundError:
            if document["kind"] not in CUSTOM:
                yield f"{what}: an unknown kind"
            for field in CUSTOM.get(document["kind"], []):
                if field not in document.get("spec", {}) and not document.get("spec", {}).get("isCA"):
                    yield f"{what}: spec.{field} is missing"
        except kubernetes_validate.ValidationError as error:
            path = ".".join(str(part) for part in error.path)
            yield f"{what}: {path}: {error.message}"


def externals(deploy):
    """(kind, name) to keys, of what is made elsewhere."""
    rows = (line.split("#")[0].split() for line in (deploy / "kubernetes/external.txt").read_text().splitlines())
    return {(row[0], row[1]): set(row[2].split(",")) for row in rows if row}


def provided(documents):
    """(kind, name) to keys, of what the documents make."""
    made = {}
    for document in pick(documents, "ConfigMap") + pick(documents, "Secret"):
        keys = set(document.get("data", {})) | set(document.get("stringData", {}))
        made[document["kind"], document["metadata"]["name"]] = keys
    for certificate in pick(documents, "Certificate"):
        made["Secret", certificate["spec"]["secretName"]] = {"tls.crt", "tls.key", "ca.crt"}
    for secret in pick(documents, "ExternalSecret"):
        made["Secret", secret["spec"]["target"]["name"]] = {each["secretKey"] for each in secret["spec"]["data"]}
    return made


def used(documents):
    """(kind, name, key or None) of what the documents refer to."""
    for workload in pick(documents, "StatefulSet"):
        pod = workload["spec"]["template"]["spec"]
        for volume in pod.get("volumes", []):
            for field, kind, name in (("configMap", "ConfigMap", "name"), ("secret", "Secret", "secretName")):
                if field in volume:
                    items = volume[field].get("items") or [{"key": None}]
                    yield from ((kind, volume[field][name], item["key"]) for item in items)
        for variable in (each for container in pod["containers"] for each in container.get("env", [])):
            for field, kind in (("configMapKeyRef", "ConfigMap"), ("secretKeyRef", "Secret")):
                reference = variable.get("valueFrom", {}).get(field)
                if reference:
                    yield kind, reference["name"], reference["key"]
    for issuer in pick(documents, "Issuer"):
        if "ca" in issuer["spec"]:
            yield "Secret", issuer["spec"]["ca"]["secretName"], "tls.key"
    for monitor in pick(documents, "ServiceMonitor"):
        for tls in (endpoint["tlsConfig"] for endpoint in monitor["spec"]["endpoints"]):
            for reference in (tls["ca"]["secret"], tls["cert"]["secret"], tls["keySecret"]):
                yield "Secret", reference["name"], reference["key"]


def references(name, documents, external):
    """Everything that is referred to is made here or listed as made elsewhere; nothing is listed for nothing."""
    made = provided(documents)
    wanted = set(used(documents))
    for kind, target, key in sorted(wanted, key=str):
        keys = made.get((kind, target), external.get((kind, target)))
        if keys is None:
            yield f"{kind} {target} is referred to and made nowhere (see external.txt)"
        elif key is not None and key not in keys:
            yield f"{kind} {target} has no key {key}"
    if name == "everything":
        for kind, target in sorted(set(external) - {(kind, target) for kind, target, _ in wanted}):
            yield f"external.txt: nothing refers to {kind} {target}"
    for workload in pick(documents, "StatefulSet"):
        pod = workload["spec"]["template"]["spec"]
        if named(documents, "ServiceAccount", pod.get("serviceAccountName")) is None:
            yield f"ServiceAccount {pod.get('serviceAccountName')} is not there"
        service = named(documents, "Service", workload["spec"].get("serviceName"))
        if service is None or service["spec"].get("clusterIP") != "None":
            yield f"serviceName {workload['spec'].get('serviceName')} is no headless Service"
        volumes = {volume["name"] for volume in pod.get("volumes", [])}
        for container in pod["containers"]:
            mounts = {mount["name"] for mount in container.get("volumeMounts", [])}
            for stray in sorted(mounts ^ volumes):
                yield f"volume {stray} is mounted but not there, or there but not mounted"
            for mount in container.get("volumeMounts", []):
                if "subPath" in mount or "subPathExpr" in mount:
                    yield f"volume {mount['name']}: files mounted by subPath are never brought up to date"
                if not mount.get("readOnly"):
                    yield f"volume {mount['name']}: is not mounted read-only"
    for scaler in pick(documents, "HorizontalPodAutoscaler"):
        target = scaler["spec"]["scaleTargetRef"]
        workload = named(documents, target["kind"], target["name"])
        if workload is None:
            yield f"autoscaler's target {target['kind']} {target['name']} is not there"
        elif "replicas" in workload["spec"]:
            yield "replicas are set though an autoscaler decides"
    issuers = {issuer["metadata"]["name"] for issuer in pick(documents, "Issuer")}
    for certificate in pick(documents, "Certificate"):
        reference = certificate["spec"]["issuerRef"]
        if reference.get("kind") != "Issuer" or reference["name"] not in issuers:
            yield f"Certificate {certificate['metadata']['name']}: issuer {reference['name']} is not there"
    stores = {store["metadata"]["name"] for store in pick(documents, "SecretStore")}
    for secret in pick(documents, "ExternalSecret"):
        if secret["spec"]["secretStoreRef"]["name"] not in stores:
            yield f"ExternalSecret {secret['metadata']['name']}: its store is not there"


def selectors(documents):
    """Everything that selects pods (or services) selects ours."""
    for workload in pick(documents, "StatefulSet"):
        labels = workload["spec"]["template"]["metadata"]["labels"].items()
        pod = workload["spec"]["template"]["spec"]
        selecting = [("StatefulSet", workload["spec"]["selector"]["matchLabels"])]
        for kind in ("PodDisruptionBudget",):
            selecting += [(kind, each["spec"]["selector"]["matchLabels"]) for each in pick(documents, kind)]
        selecting += [("Service", each["spec"]["selector"]) for each in pick(documents, "Service")]
        selecting += [
            (f"NetworkPolicy {each['metadata']['name']}", each["spec"]["podSelector"].get("matchLabels", {}))
            for each in pick(documents, "NetworkPolicy")
        ]
        selecting += [
            ("topologySpreadConstraints", each["labelSelector"]["matchLabels"])
            for each in pod.get("topologySpreadConstraints", [])
        ]
        for what, selector in selecting:
            if not selector.items() <= labels:
                yield f"{what}: its selector {selector} does not match the pods"
    for monitor in pick(documents, "ServiceMonitor"):
        wanted = monitor["spec"]["selector"]["matchLabels"].items()
        matching = [each for each in pick(documents, "Service") if wanted <= each["metadata"]["labels"].items()]
        ports_ = [{port["name"] for port in service["spec"]["ports"]} for service in matching]
        for endpoint in monitor["spec"]["endpoints"]:
            if not any(endpoint["port"] in names for names in ports_):
                yield f"ServiceMonitor: no service has a port {endpoint['port']}"


def ports(documents):
    """Named ports are the container's."""
    for workload in pick(documents, "StatefulSet"):
        containers = workload["spec"]["template"]["spec"]["containers"]
        names = {port["name"] for container in containers for port in container.get("ports", [])}
        wanted = [
            (f"Service {service['metadata']['name']}", port["targetPort"])
            for service in pick(documents, "Service")
            for port in service["spec"]["ports"]
        ]
        for container in containers:
            for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
                if "grpc" in container.get(probe, {}):
                    yield f"{probe}: the kubelet's gRPC probe has no TLS and no certificate, so the vault refuses it"
                if "tcpSocket" in container.get(probe, {}):
                    wanted.append((probe, container[probe]["tcpSocket"]["port"]))
        for policy in pick(documents, "NetworkPolicy"):
            rules = policy["spec"].get("ingress", [])
            wanted += [(policy["metadata"]["name"], port["port"]) for rule in rules for port in rule.get("ports", [])]
        for what, port in wanted:
            if port not in names:
                yield f"{what}: the container has no port named {port}"


def security(documents, workload):
    """What Pod Security `restricted` asks for, and what the vault asks for besides."""
    pod = workload["spec"]["template"]["spec"]
    context = pod.get("securityContext", {})
    wanted = {
        "runAsNonRoot": context.get("runAsNonRoot") is True,
        "runAsUser": isinstance(context.get("runAsUser"), int) and context["runAsUser"] > 0,
        "fsGroup": isinstance(context.get("fsGroup"), int),
        "seccompProfile": context.get("seccompProfile", {}).get("type") in ("RuntimeDefault", "Localhost"),
    }
    yield from (f"pod securityContext.{field} is not as it must be" for field, good in wanted.items() if not good)
    for field in ("hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace"):
        if pod.get(field):
            yield f"{field} must not be set"
    if pod.get("automountServiceAccountToken") is not False:
        yield "automountServiceAccountToken must be false: the vault calls no cluster API"
    for volume in pod.get("volumes", []):
        if not {"configMap", "secret", "emptyDir", "projected"} & set(volume):
            yield f"volume {volume['name']}: of a kind that is not allowed"
        mode = volume.get("secret", {}).get("defaultMode", 0o644)
        if "secret" in volume and mode & 0o007:
            yield f"volume {volume['name']}: others can read it (mode {mode:o})"
    for container in pod["containers"] + pod.get("initContainers", []):
        where = f"container {container['name']}"
        context = container.get("securityContext", {})
        if context.get("allowPrivilegeEscalation") is not False:
            yield f"{where}: allowPrivilegeEscalation must be false"
        if context.get("readOnlyRootFilesystem") is not True:
            yield f"{where}: readOnlyRootFilesystem must be true"
        if context.get("capabilities", {}).get("drop") != ["ALL"] or context["capabilities"].get("add"):
            yield f"{where}: all capabilities must be dropped"
        image = container["image"].rsplit("/", 1)[-1]
        if "@sha256:" not in image and (":" not in image or image.endswith(":latest")):
            yield f"{where}: image {container['image']} has no version"
        resources = container.get("resources", {})
        memory = [resources.get(which, {}).get("memory") for which in ("requests", "limits")]
        if memory[0] is None or memory[0] != memory[1]:
            yield f"{where}: memory's request and limit must be the same, so that none of it is swapped"
        for variable in container.get("env", []):
            words = ("PASSWORD", "SECRET", "TOKEN")
            if "value" in variable and any(word in variable["name"].upper() for word in words):
                yield f"{where}: {variable['name']} has its value in the manifest"
    namespace = named(documents, "Namespace", workload["metadata"]["namespace"])
    labels = (namespace or {}).get("metadata", {}).get("labels", {})
    if labels.get("pod-security.kubernetes.io/enforce") != "restricted":
        yield "the namespace does not enforce pod security `restricted`"
    denying = [
        policy
        for policy in pick(documents, "NetworkPolicy")
        if policy["spec"]["podSelector"] == {} and set(policy["spec"]["policyTypes"]) == {"Ingress", "Egress"}
    ]
    if not any("ingress" not in each["spec"] and "egress" not in each["spec"] for each in denying):
        yield "no NetworkPolicy denies everything first"
    for policy in pick(documents, "NetworkPolicy"):
        for direction, peers in (("ingress", "from"), ("egress", "to")):
            for rule in policy["spec"].get(direction, []):
                if not rule.get(peers) or not rule.get("ports"):
                    yield f"NetworkPolicy {policy['metadata']['name']}: a rule for everyone or every port"
                for peer in rule.get(peers, []):
                    if peer.get("ipBlock", {}).get("cidr", "").endswith("/0"):
                        yield f"NetworkPolicy {policy['metadata']['name']}: a rule for the whole internet"


def availability(documents, workload):
    """Spread, disruption, probes."""
    pod = workload["spec"]["template"]["spec"]
    keys = {each["topologyKey"] for each in pod.get("topologySpreadConstraints", [])}
    if "topology.kubernetes.io/zone" not in keys:
        yield "instances are not spread over zones"
    if not pick(documents, "PodDisruptionBudget"):
        yield "there is no PodDisruptionBudget"
    scalers = pick(documents, "HorizontalPodAutoscaler")
    fewest = scalers[0]["spec"]["minReplicas"] if scalers else workload["spec"].get("replicas", 1)
    if fewest < 2:
        yield f"{fewest} instance is no redundancy"
    for container in pod["containers"]:
        for probe in ("startupProbe", "readinessProbe"):
            if probe not in container:
                yield f"there is no {probe}"


def certificates(documents):
    """A server's names the services; a client's has one SPIFFE id; each is for one purpose."""
    services = {service["metadata"]["name"] for service in pick(documents, "Service")}
    for certificate in pick(documents, "Certificate"):
        spec, name = certificate["spec"], certificate["metadata"]["name"]
        usages = set(spec["usages"])
        if {"server auth", "client auth"} <= usages:
            yield f"Certificate {name}: is for servers and clients at once"
        if "client auth" in usages and (len(spec.get("uris", [])) != 1 or not spec["uris"][0].startswith("spiffe://")):
            yield f"Certificate {name}: a client's has exactly one URI, a SPIFFE id"
        if "server auth" in usages:
            for service in sorted(services):
                if not any(f"{service}.{certificate['metadata']['namespace']}.svc" in dns for dns in spec["dnsNames"]):
                    yield f"Certificate {name}: does not name the service {service}"
