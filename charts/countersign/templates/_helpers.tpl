{{/* Name of the namespaced objects. The Service must be a DNS label, and the
     StatefulSet's hash label leaves it 52 characters. */}}
{{- define "countersign.fullname" -}}
{{- $name := .Values.fullnameOverride -}}
{{- if not $name -}}
{{- $name = contains .Chart.Name .Release.Name | ternary .Release.Name (printf "%s-%s" .Release.Name .Chart.Name) -}}
{{- $name = $name | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- if not (regexMatch "^[a-z]([-a-z0-9]*[a-z0-9])?$" $name) -}}
{{- fail (printf "%q cannot be the name of a Service: set fullnameOverride" $name) -}}
{{- end -}}
{{- $name -}}
{{- end -}}

{{- define "countersign.serviceAccountName" -}}
{{- .Values.serviceAccount.name | default (include "countersign.fullname" .) -}}
{{- end -}}

{{- define "countersign.issuer" -}}
{{- .Values.issuer | default (printf "https://%s.%s.svc" (include "countersign.fullname" .) .Release.Namespace) -}}
{{- end -}}

{{- define "countersign.image" -}}
{{- with .Values.image -}}
{{- with .registry }}{{ . }}/{{ end -}}
{{- .repository -}}
{{- if .digest }}@{{ .digest }}{{ else }}:{{ .tag | default $.Chart.AppVersion }}{{ end -}}
{{- end -}}
{{- end -}}

{{/* Not empty if sidecars are injected. */}}
{{- define "countersign.injects" -}}
{{- $enabled := toString .Values.injection.enabled -}}
{{- $known := or (not (include "countersign.tlsSecret" .)) .Values.injection.certificateAuthority -}}
{{- if eq $enabled "auto" -}}
{{- if and $known (.Capabilities.APIVersions.Has "admissionregistration.k8s.io/v1/MutatingAdmissionPolicy") }}true{{ end -}}
{{- else if eq $enabled "true" -}}
{{- if not $known -}}
{{- fail "injection.certificateAuthority: with tls.existingSecret or tls.certManager only you know who has signed the server's certificate" -}}
{{- end -}}
true
{{- end -}}
{{- end -}}

{{- define "countersign.workloadKind" -}}
{{- if .Values.database.existingSecret }}Deployment{{ else }}StatefulSet{{ end -}}
{{- end -}}

{{- define "countersign.selectorLabels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end -}}

{{- define "countersign.labels" -}}
{{ include "countersign.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* Prints the documents of a generated file. Labels, and annotations if asked
     for, are merged into the metadata. What follows `spec:` comes out byte for
     byte: the operator compares it, and a detour through fromYaml and toYaml
     would rewrite numbers.
     Arguments: root, file, annotations. */}}
{{- define "countersign.generated" -}}
{{- $text := .root.Files.Get .file -}}
{{- $labels := include "countersign.labels" .root | fromYaml -}}
{{- $found := 0 -}}
{{- range $document := regexSplit "(?m)^---[ \t]*$" $text -1 }}
{{- $parts := regexSplit "(?m)^spec:" $document -1 }}
{{- $head := first $parts | fromYaml }}
{{- if $head }}
{{- if or (ne (len $parts) 2) (not (dig "metadata" "name" "" $head)) }}
{{- fail (printf "%s: a document is not apiVersion, kind, metadata, then spec" $.file) }}
{{- end }}
{{- $found = add1 $found }}
{{- $metadata := $head.metadata }}
{{- $_ := set $metadata "labels" (merge (dict) ($metadata.labels | default dict) $labels) }}
{{- with $.annotations }}
{{- $_ := set $metadata "annotations" (merge (dict) ($metadata.annotations | default dict) .) }}
{{- end }}
---
{{ toYaml $head }}
spec:{{ last $parts | trimSuffix "\n" }}
{{- end }}
{{- end }}
{{- if not $found }}{{ fail (printf "%s holds no document" .file) }}{{ end -}}
{{- end -}}

{{/* The Secret with the server's certificate. Empty if the operator makes its own. */}}
{{- define "countersign.tlsSecret" -}}
{{- if .Values.tls.certManager.enabled -}}
{{- if .Values.tls.existingSecret -}}
{{- fail "tls: existingSecret and certManager exclude each other: who makes the certificate?" -}}
{{- end -}}
{{ include "countersign.fullname" . }}-tls
{{- else -}}
{{ .Values.tls.existingSecret }}
{{- end -}}
{{- end -}}

{{/* The names of the Service, one on each line. */}}
{{- define "countersign.serviceNames" -}}
{{- $fullname := include "countersign.fullname" . -}}
{{ $fullname }}
{{ $fullname }}.{{ .Release.Namespace }}
{{ $fullname }}.{{ .Release.Namespace }}.svc
{{ $fullname }}.{{ .Release.Namespace }}.svc.cluster.local
{{- end -}}

{{/* What keeps a pod within the Pod Security Standard `restricted`. No value changes it. */}}
{{- define "countersign.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "countersign.containerSecurityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{/* Labels of what `helm test` makes. The Service, the budget and the network policy must not
     take its pod for the operator's. */}}
{{- define "countersign.testLabels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}-test
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end -}}
