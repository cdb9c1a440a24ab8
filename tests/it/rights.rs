//! What tests let somebody do.

use crate::world::{PATIENCE, World, wait_until};
use serde_json::{Value, json};

/// The API group of roles.
pub const RBAC: &str = "rbac.authorization.k8s.io";

impl World {
    /// A Role with `rules` in `namespace`, bound to `subjects`.
    pub fn bind(&self, namespace: &str, name: &str, rules: &Value, subjects: &[Value]) {
        let metadata = json!({"name": name, "namespace": namespace});
        self.rbac("Role", &metadata, json!({"rules": rules}));
        let role = json!({"apiGroup": RBAC, "kind": "Role", "name": name});
        self.rbac("RoleBinding", &metadata, json!({"roleRef": role, "subjects": subjects}));
        self.until_allowed(Some(namespace), rules, subjects);
    }

    /// A ClusterRole with `rules`, bound in the whole cluster to `subjects`.
    pub fn bind_everywhere(&self, name: &str, rules: &Value, subjects: &[Value]) {
        let metadata = json!({"name": name});
        self.rbac("ClusterRole", &metadata, json!({"rules": rules}));
        let role = json!({"apiGroup": RBAC, "kind": "ClusterRole", "name": name});
        self.rbac("ClusterRoleBinding", &metadata, json!({"roleRef": role, "subjects": subjects}));
        self.until_allowed(None, rules, subjects);
    }

    /// An existing ClusterRole, bound in `namespace` to `subjects`.
    pub fn bind_cluster_role(&self, namespace: &str, name: &str, role: &str, subjects: &[Value]) {
        let role_ref = json!({"apiGroup": RBAC, "kind": "ClusterRole", "name": role});
        let metadata = json!({"name": name, "namespace": namespace});
        self.rbac("RoleBinding", &metadata, json!({"roleRef": role_ref, "subjects": subjects}));
        self.until_allowed(Some(namespace), &self.rules_of(role), subjects);
    }

    /// An existing ClusterRole, bound in the whole cluster to `subjects`.
    pub fn bind_cluster_role_everywhere(&self, name: &str, role: &str, subjects: &[Value]) {
        let role_ref = json!({"apiGroup": RBAC, "kind": "ClusterRole", "name": role});
        self.rbac("ClusterRoleBinding", &json!({"name": name}), json!({"roleRef": role_ref, "subjects": subjects}));
        self.until_allowed(None, &self.rules_of(role), subjects);
    }

    fn rules_of(&self, cluster_role: &str) -> Value {
        self.kubectl().get_json(&["get", "clusterrole", cluster_role]).expect("the ClusterRole")["rules"].take()
    }

    /// Waits until `subjects` may do what `rules` say. The API server learns of a binding a moment after it has stored it, and the
    /// operator remembers for seconds that somebody may not.
    fn until_allowed(&self, namespace: Option<&str>, rules: &Value, subjects: &[Value]) {
        let api = self.kubectl().api().expect("the administrator's way to the API server");
        for rule in rules.as_array().expect("rules") {
            let all = |member: &str| rule[member].as_array().into_iter().flatten().filter_map(Value::as_str);
            let names: Vec<Option<&str>> =
                if rule["resourceNames"].is_array() { all("resourceNames").map(Some).collect() } else { vec![None] };
            let each = all("verbs").flat_map(|verb| all("apiGroups").map(move |group| (verb, group)));
            let each = each.flat_map(|(verb, group)| all("resources").map(move |resource| (verb, group, resource)));
            let each = each.flat_map(|(verb, group, resource)| names.iter().map(move |name| (verb, group, resource, name)));
            for (verb, group, resource, name) in each {
                let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
                let attributes = json!({"namespace": namespace, "verb": verb, "group": group, "resource": resource, "subresource": subresource, "name": name});
                for subject in subjects {
                    let mut spec = reviewed(subject);
                    spec["resourceAttributes"] = attributes.clone();
                    let review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec});
                    wait_until(&format!("allowed: {spec}"), PATIENCE, || {
                        api.post("/apis/authorization.k8s.io/v1/subjectaccessreviews", &review)
                            .is_some_and(|review| review["status"]["allowed"] == true)
                    });
                }
            }
        }
    }

    fn rbac(&self, kind: &str, metadata: &Value, mut object: Value) {
        object["apiVersion"] = json!(format!("{RBAC}/v1"));
        object["kind"] = json!(kind);
        object["metadata"] = metadata.clone();
        self.apply(&object).expect(kind);
    }
}

/// The subject of a role binding as the subject of a SubjectAccessReview.
fn reviewed(subject: &Value) -> Value {
    let text = |member: &str| subject[member].as_str().unwrap_or_else(|| panic!("no {member} in {subject}"));
    match text("kind") {
        "User" => json!({"user": text("name")}),
        "Group" => json!({"user": "nobody", "groups": [text("name")]}),
        "ServiceAccount" => json!({"user": format!("system:serviceaccount:{}:{}", text("namespace"), text("name"))}),
        kind => panic!("what is a {kind}?"),
    }
}
