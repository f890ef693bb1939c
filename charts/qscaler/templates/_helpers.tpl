{{/* An image by digest where one is given, else by tag; call with (list . .Values.image). */}}
{{- define "qscaler.reference" -}}
{{- $image := index . 1 -}}
{{- if $image.digest -}}
{{ $image.repository }}@{{ $image.digest }}
{{- else -}}
{{ $image.repository }}:{{ $image.tag | default (index . 0).Chart.AppVersion }}
{{- end }}
{{- end }}

{{- define "qscaler.image" -}}
{{ include "qscaler.reference" (list . .Values.image) }}
{{- end }}

{{- define "qscaler.sidecarImage" -}}
{{ include "qscaler.reference" (list . .Values.sidecar.image) }}
{{- end }}

{{/* Labels of one part; call with (list . "webhook"), or with a map of further ones, which win over those for all objects, as the third. */}}
{{- define "qscaler.labels" -}}
{{- $root := index . 0 }}
{{- include "qscaler.selector" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
{{- $own := dict }}
{{- if gt (len .) 2 }}
{{- $own = index . 2 | default dict }}
{{- end }}
{{- with merge (dict) $own ($root.Values.commonLabels | default dict) }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "qscaler.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: qscaler
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{/* What every container of ours has. */}}
{{- define "qscaler.container" -}}
image: {{ include "qscaler.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
livenessProbe:
  httpGet: {path: /livez, port: admin}
  periodSeconds: 10
  failureThreshold: 6
readinessProbe:
  httpGet: {path: /readyz, port: admin}
  periodSeconds: 2
  failureThreshold: 2
{{- end }}

{{/* A drain takes one replica of a part at a time; call with (list . "webhook"). */}}
{{- define "qscaler.disruptionBudget" -}}
{{- $root := index . 0 -}}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: qscaler-{{ index . 1 }}
  namespace: {{ $root.Release.Namespace }}
  labels: {{- include "qscaler.labels" . | nindent 4 }}
spec:
  maxUnavailable: {{ (index $root.Values (index . 1)).maxUnavailable }}
  selector:
    matchLabels: {{- include "qscaler.selector" . | nindent 6 }}
{{- end }}

{{/* What Helm makes once everything else of the release is gone, in this order, and removes again where it succeeds. */}}
{{- define "qscaler.cleanUpHook" -}}
helm.sh/hook: post-delete
helm.sh/hook-weight: {{ . | quote }}
helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
{{- end }}
