{{/* Name of a cluster-scoped object: two releases fit in one cluster. */}}
{{- define "freehold.clusterName" -}}
{{- printf "%s-%s" .Release.Namespace .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{/* The release as ComputeAccounts and labels name it. */}}
{{- define "freehold.release" -}}
{{- printf "%s.%s" .Release.Namespace .Release.Name -}}
{{- end -}}

{{- define "freehold.labels" -}}
app.kubernetes.io/name: freehold
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
freehold.dev/release: {{ include "freehold.release" . }}
{{- end -}}

{{/* Selector of one component: (dict "root" $ "component" "gateway") */}}
{{- define "freehold.selector" -}}
app.kubernetes.io/name: freehold
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "freehold.agentNamespace" -}}
{{- printf "%s-agent" .Release.Namespace -}}
{{- end -}}

{{- define "freehold.signerNamespace" -}}
{{- .Values.signer.namespace | default (printf "%s-signer" .Release.Namespace) -}}
{{- end -}}

{{/* Goals that the signer signs for: those that the release's roles pursue, unless the values name others. */}}
{{- define "freehold.signerGoals" -}}
{{- $goals := .Values.signer.policy.goals -}}
{{- if not $goals -}}
{{- $goals = list "approve" "closeOrder" "acceptResult" "noShow" "withdraw" "void" -}}
{{- if .Values.tenant.enabled -}}
{{- $goals = concat $goals (list "placeOrder" "acceptBid" "cancelOrder" "rejectResult" "topUp") -}}
{{- end -}}
{{- if .Values.provider.enabled -}}
{{- $goals = concat $goals (list "bid" "unbid" "reclaim" "start" "decline" "deliver" "register") -}}
{{- end -}}
{{- end -}}
{{- toJson $goals -}}
{{- end -}}

{{/* Gateways that a tenant's tokens may be for, and the one that a provider registers as its own. */}}
{{- define "freehold.signerGateways" -}}
{{- $gateways := list -}}
{{- if .Values.tenant.enabled -}}
{{- $gateways = concat $gateways .Values.signer.policy.gateways -}}
{{- end -}}
{{- if .Values.provider.enabled -}}
{{- $gateways = append $gateways (regexReplaceAll "^https?://([^/]+).*$" .Values.provider.gatewayUrl "${1}") -}}
{{- end -}}
{{- toJson $gateways -}}
{{- end -}}

{{/* Where the account's signatures come from, as ComputeAccount.spec.signerRef. */}}
{{- define "freehold.signerRef" -}}
{{- if .Values.signer.enabled -}}
url: http://{{ .Release.Name }}-signer.{{ include "freehold.signerNamespace" . }}.svc:8080
{{- else if .Values.account.signerRef -}}
{{- toYaml .Values.account.signerRef -}}
{{- else -}}
secret: {{- toYaml .Values.account.keySecret | nindent 2 }}
{{- end -}}
{{- end -}}

{{- define "freehold.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile: { type: RuntimeDefault }
{{- end -}}

{{- define "freehold.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: { drop: [ALL] }
{{- end -}}

{{/* A volume called "store": a claim, a folder of the node, or an emptyDir. */}}
{{- define "freehold.store" -}}
- name: store
  {{- if .persistentVolumeClaim }}
  persistentVolumeClaim: { claimName: {{ .persistentVolumeClaim }} }
  {{- else if .hostPath }}
  hostPath: { path: {{ .hostPath }}, type: DirectoryOrCreate }
  {{- else }}
  emptyDir: { sizeLimit: {{ .sizeLimit }} }
  {{- end }}
{{- end -}}
