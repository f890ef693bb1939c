{{/* Metadata of one part's pods; call with (list . "webhook"). */}}
{{- define "qscaler.podMetadata" -}}
{{- $root := index . 0 -}}
{{- $part := index $root.Values (index . 1) -}}
labels: {{- include "qscaler.labels" (list $root (index . 1) $part.podLabels) | nindent 2 }}
{{- $annotations := merge (dict) $part.podAnnotations $root.Values.commonAnnotations }}
{{- with $root.Values.brokerCa.pem }}
{{- $annotations = merge (dict "checksum/broker-ca" (sha256sum .)) $annotations }}
{{- end }}
{{- with $annotations }}
annotations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* Annotations of one part's Deployment, where there are any. */}}
{{- define "qscaler.annotations" -}}
{{- with .Values.commonAnnotations }}
annotations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* What every pod of ours has; a part's own word on where it runs wins over that for all. Call with (list . "webhook"). */}}
{{- define "qscaler.podSpec" -}}
{{- $root := index . 0 -}}
{{- $part := index $root.Values (index . 1) -}}
{{- with $root.Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  runAsNonRoot: true
  {{- with $root.Values.runAsUser }}
  runAsUser: {{ int64 . }}
  runAsGroup: {{ int64 . }}
  {{- end }}
  seccompProfile: {type: RuntimeDefault}
{{- with $part.priorityClassName | default $root.Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with $part.nodeSelector | default $root.Values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $part.tolerations | default $root.Values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $part.affinity | default $root.Values.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
topologySpreadConstraints:
{{- with $part.topologySpreadConstraints | default $root.Values.topologySpreadConstraints }}
{{- toYaml . | nindent 0 }}
{{- else }}
{{- range list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
- maxSkew: 1
  topologyKey: {{ . }}
  whenUnsatisfiable: ScheduleAnyway
  labelSelector:
    matchLabels: {{- include "qscaler.selector" (list $root (index $ 1)) | nindent 6 }}
{{- end }}
{{- end }}
{{- end }}

{{/* Variables that a user adds to one part's container; call with (list . "webhook"). */}}
{{- define "qscaler.env" -}}
{{- with (index (index . 0).Values (index . 1)).env }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Where authorities of brokers are, for controller and webhook: the volume, its mount and the variable that names the file. */}}
{{- define "qscaler.brokerCaEnv" -}}
{{- if or .Values.brokerCa.pem .Values.brokerCa.configMap }}
- {name: QSCALER_BROKER_CA_FILE, value: /etc/qscaler/broker-ca/{{ .Values.brokerCa.key }}}
{{- end }}
{{- end }}

{{- define "qscaler.brokerCaMount" -}}
{{- if or .Values.brokerCa.pem .Values.brokerCa.configMap }}
volumeMounts:
- {name: broker-ca, mountPath: /etc/qscaler/broker-ca, readOnly: true}
{{- end }}
{{- end }}

{{- define "qscaler.brokerCaVolume" -}}
{{- if or .Values.brokerCa.pem .Values.brokerCa.configMap }}
{{- if and .Values.brokerCa.pem .Values.brokerCa.configMap }}
{{- fail "brokerCa: pem and configMap are both set; valid: one of them" }}
{{- end }}
volumes:
- name: broker-ca
  configMap: {name: {{ .Values.brokerCa.configMap | default "qscaler-broker-ca" }}}
{{- end }}
{{- end }}
