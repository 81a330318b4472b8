{{- define "to.name" -}}
{{- default .Release.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/* A duration as the program reads it; large numbers are floats to helm. */}}
{{- define "to.duration" -}}
{{- if kindIs "string" . }}{{ . }}{{ else }}{{ int64 . }}{{ end -}}
{{- end -}}

{{/* A duration of which a plain number is days. */}}
{{- define "to.days" -}}
{{- $text := include "to.duration" . -}}
{{- if regexMatch "^[0-9]+$" $text }}{{ $text }}d{{ else }}{{ $text }}{{ end -}}
{{- end -}}

{{- define "to.selector" -}}
app.kubernetes.io/name: {{ .root.Chart.Name }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{/* Labels and annotations of every object: (dict "root" $ "component" "web") */}}
{{- define "to.meta" -}}
labels:
  {{- include "to.selector" . | nindent 2 }}
  app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
  app.kubernetes.io/managed-by: {{ .root.Release.Service }}
  helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
  {{- with .root.Values.commonLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
  {{- with .labels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- $annotations := merge (dict) (.annotations | default dict) .root.Values.commonAnnotations }}
{{- with $annotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "to.serviceAccount" -}}
{{- $of := index .root.Values .component -}}
{{- default (printf "%s-%s" (include "to.name" .root) .component) $of.serviceAccount.name -}}
{{- end -}}

{{- define "to.image" -}}
{{- $tag := default (ternary (printf "%s-sandbox" .Chart.AppVersion) .Chart.AppVersion .Values.sandbox.enabled) .Values.image.tag -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ $tag }}
{{- end -}}
{{- end -}}

{{- define "to.signupNamespace" -}}
{{- default (default (printf "%s-tenants" (include "to.name" .)) (first .Values.watchNamespaces)) .Values.signupNamespace -}}
{{- end -}}

{{/* The user name of a component's service account: (dict "root" $ "component" "web") */}}
{{- define "to.userName" -}}
system:serviceaccount:{{ .root.Release.Namespace }}:{{ include "to.serviceAccount" . }}
{{- end -}}

{{/* CEL: whether a user is not exempt from the admission policies. */}}
{{- define "to.notExempt" -}}
{{- $users := .Values.admission.exemptUsers | toJson | replace "\"" "'" -}}
{{- $groups := .Values.admission.exemptGroups | toJson | replace "\"" "'" -}}
!(request.userInfo.username in {{ $users }} || request.userInfo.groups.exists(group, group in {{ $groups }}))
{{- end -}}

{{/* The same for people: who is exempt, for the preflight checks. */}}
{{- define "to.exempt" -}}
{{- $all := list }}
{{- range .Values.admission.exemptUsers }}{{ $all = append $all (printf "user %s" .) }}{{ end }}
{{- range .Values.admission.exemptGroups }}{{ $all = append $all (printf "group %s" .) }}{{ end }}
{{- join ", " $all }}
{{- end -}}

{{/* Credentials that may be missing: with existingSecret of their own alone. */}}
{{- define "to.optionalCredentials" -}}
alertWebhookUrl stripePortalKey captchaSecretKey usageEventsToken webPineconeApiKey webOpenaiApiKey
{{- end -}}

{{/* The name of the Secret of one credential, or nothing. */}}
{{- define "to.secretName" -}}
{{- $one := index .root.Values.credentials .credential -}}
{{- if $one.existingSecret -}}
{{ $one.existingSecret }}
{{- else if not (has .credential (splitList " " (include "to.optionalCredentials" .))) -}}
{{ .root.Values.credentials.existingSecret }}
{{- end -}}
{{- end -}}

{{/* One variable from a Secret: (dict "root" $ "credential" "stripeSecretKey" "env" "STRIPE_SECRET_KEY") */}}
{{- define "to.secretEnv" -}}
{{- $name := include "to.secretName" . -}}
{{- if and (not .root.Values.sandbox.enabled) $name }}
- name: {{ .env }}
  valueFrom:
    secretKeyRef:
      name: {{ $name }}
      key: {{ (index .root.Values.credentials .credential).key }}
{{- end }}
{{- end -}}

{{/* A map as key=value,key=value. */}}
{{- define "to.pairs" -}}
{{- $pairs := list }}
{{- range $key, $value := . }}
{{- $pairs = append $pairs (printf "%s=%s" $key $value) }}
{{- end }}
{{- join "," $pairs }}
{{- end -}}

{{/* The keys to the storage of exports: the name of a Secret. */}}
{{- define "to.exportsEnv" -}}
{{- range $key := list "AWS_ACCESS_KEY_ID" "AWS_SECRET_ACCESS_KEY" }}
- name: {{ $key }}
  valueFrom: {secretKeyRef: {name: {{ $ }}, key: {{ $key }}}}
{{- end }}
{{- end -}}

{{/* What every part wants to know: how to log, whom to trust, where traces go. */}}
{{- define "to.programEnv" }}
- name: RUST_LOG
  value: {{ .Values.logLevel | quote }}
- name: LOG_FORMAT
  value: {{ .Values.logFormat | quote }}
{{- if or .Values.trustedCa.configMap .Values.trustedCa.secret }}
# Read beside the image's own SSL_CERT_FILE.
- name: SSL_CERT_DIR
  value: /etc/tenant-operator/ca
{{- end }}
{{- with .Values.traces.endpoint }}
- name: OTEL_EXPORTER_OTLP_ENDPOINT
  value: {{ . | quote }}
{{- end }}
{{- end -}}

{{/* What both pods want to know of Pinecone and OpenAI, and of the pod itself. Keys are each pod's own. */}}
{{- define "to.env" -}}
- name: POD_NAME
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
- name: POD_NAMESPACE
  valueFrom: {fieldRef: {fieldPath: metadata.namespace}}
{{- if .Values.watchNamespaces }}
- name: WATCH_NAMESPACE
  value: {{ join "," .Values.watchNamespaces | quote }}
{{- end }}
{{- include "to.programEnv" . }}
- name: LEDGER_ENDPOINT
  value: http://{{ include "to.name" . }}-ledger.{{ .Release.Namespace }}.svc:8084
- name: TENANT_NAMESPACE
  value: {{ include "to.signupNamespace" . | quote }}
- name: SHARED_SIGNUP_NAMESPACE
  value: {{ .Values.sharedSignupNamespace | quote }}
- name: PRODUCT_NAME
  value: {{ .Values.productName | quote }}
- name: FRONTEND_URL
  value: {{ default (ternary (printf "http://%s-web.%s.svc" (include "to.name" .) .Release.Namespace) "" .Values.sandbox.enabled) .Values.frontendUrl | quote }}
{{- with .Values.exports.url }}
- name: EXPORTS_URL
  value: {{ . | quote }}
{{- end }}
{{- with .Values.exports.regions }}
- name: EXPORTS_REGIONS
  value: {{ include "to.pairs" . | quote }}
{{- end }}
{{- with .Values.exports.region }}
- name: AWS_REGION
  value: {{ . | quote }}
{{- end }}
{{- with .Values.exports.endpoint }}
- name: AWS_ENDPOINT_URL
  value: {{ . | quote }}
{{- end }}
- name: PINECONE_INDEX
  value: {{ .Values.pinecone.index | quote }}
{{- with .Values.pinecone.regions }}
- name: PINECONE_REGIONS
  value: {{ include "to.pairs" . | quote }}
{{- end }}
- name: PINECONE_NAMESPACE_LIMIT
  value: {{ int64 .Values.pinecone.namespaceLimit | quote }}
- name: PINECONE_RATE
  value: {{ .Values.pinecone.rate | quote }}
- name: OPENAI_RATE
  value: {{ .Values.openai.rate | quote }}
{{- if .Values.sandbox.enabled }}
{{- $host := printf "%s-sandbox.%s.svc" (include "to.name" .) .Release.Namespace }}
- name: PINECONE_URL
  value: http://{{ $host }}:9002
- name: PINECONE_API_KEY
  value: sandbox
- name: OPENAI_BASE_URL
  value: http://{{ $host }}:9003/v1
- name: OPENAI_API_KEY
  value: sandbox
{{- else }}
- name: PINECONE_URL
  value: {{ .Values.pinecone.url | quote }}
- name: OPENAI_BASE_URL
  value: {{ .Values.openai.baseUrl | quote }}
{{- end }}
{{- end -}}

{{/* What the controller alone knows. */}}
{{- define "to.controllerEnv" -}}
{{- include "to.env" . }}
- name: STRIPE_RATE
  value: {{ .Values.stripe.rate | quote }}
- name: USAGE_BILLING_CONCURRENCY
  value: {{ .Values.stripe.usageBillingConcurrency | quote }}
- name: FROM_EMAIL
  value: {{ default (ternary "hello@example.com" "" .Values.sandbox.enabled) .Values.fromEmail | quote }}
{{- with .Values.dkimSelectors }}
- name: DKIM_SELECTORS
  value: {{ join "," . | quote }}
{{- end }}
- name: EMAIL_VERIFICATION
  value: {{ .Values.emailVerification | quote }}
- name: STRIPE_PROMOTION_CODES
  value: {{ .Values.stripe.promotionCodes | quote }}
- name: SUSPEND_DISPUTED
  value: {{ .Values.suspendDisputed | quote }}
- name: RETRY_WAITS
  value: {{ .Values.retryWaits | quote }}
- name: BRAKE_PERCENT
  value: {{ .Values.brake.percent | quote }}
- name: BRAKE_AT_LEAST
  value: {{ .Values.brake.atLeast | quote }}
- name: BRAKE_WINDOW
  value: {{ include "to.duration" .Values.brake.window | quote }}
- name: UPLOAD_LIMIT
  value: {{ include "to.duration" .Values.uploadLimit | quote }}
- name: LEAD_TTL
  value: {{ include "to.days" .Values.leads.keepDays | quote }}
- name: WIN_BACK_AFTER
  value: {{ include "to.days" .Values.winBack.afterDays | quote }}
{{- with .Values.winBack.offer }}
- name: WIN_BACK_OFFER
  value: {{ . | quote }}
{{- end }}
{{- if or .Values.exports.url .Values.exports.regions }}
- name: EXPORTS_KEPT
  value: {{ include "to.days" .Values.exports.keepDays | quote }}
{{- end }}
- name: DPA_URL
  value: {{ .Values.dpaUrl | quote }}
{{- if .Values.mailTemplates }}
- name: MAIL_TEMPLATES
  value: /etc/tenant-operator/mail
{{- end }}
- name: DOCS_URL
  value: {{ default .Values.frontendUrl .Values.docsUrl | quote }}
{{- if .Values.sandbox.enabled }}
{{- $host := printf "%s-sandbox.%s.svc" (include "to.name" .) .Release.Namespace }}
- name: STRIPE_URL
  value: http://{{ $host }}:9001
- name: STRIPE_SECRET_KEY
  value: sk_test_sandbox
- name: SMTP_URL
  value: smtp://{{ $host }}:9004
- name: ALERT_WEBHOOK_URL
  value: http://{{ $host }}:9000/_sandbox/alerts
{{- else }}
- name: STRIPE_URL
  value: {{ .Values.stripe.url | quote }}
{{- end }}
{{- with .Values.exports.existingSecret }}
{{- include "to.exportsEnv" . }}
{{- end }}
{{- include "to.secretEnv" (dict "root" . "credential" "pineconeApiKey" "env" "PINECONE_API_KEY") }}
{{- include "to.secretEnv" (dict "root" . "credential" "openaiApiKey" "env" "OPENAI_API_KEY") }}
{{- include "to.secretEnv" (dict "root" . "credential" "stripeSecretKey" "env" "STRIPE_SECRET_KEY") }}
{{- include "to.secretEnv" (dict "root" . "credential" "smtpUrl" "env" "SMTP_URL") }}
{{- include "to.secretEnv" (dict "root" . "credential" "alertWebhookUrl" "env" "ALERT_WEBHOOK_URL") }}
{{- end -}}

{{/* Where certificate authorities are mounted, and what they are. */}}
{{- define "to.caMount" -}}
{{- if or .Values.trustedCa.configMap .Values.trustedCa.secret }}
- {name: trusted-ca, mountPath: /etc/tenant-operator/ca, readOnly: true}
{{- end }}
{{- end -}}

{{- define "to.caVolume" -}}
{{- $items := printf "[{key: %s, path: ca.crt}]" (.Values.trustedCa.key | quote) }}
{{- if .Values.trustedCa.configMap }}
- name: trusted-ca
  configMap: {name: {{ .Values.trustedCa.configMap }}, items: {{ $items }}}
{{- else if .Values.trustedCa.secret }}
- name: trusted-ca
  secret: {secretName: {{ .Values.trustedCa.secret }}, items: {{ $items }}}
{{- end }}
{{- end -}}

{{/* What the controller's containers mount. */}}
{{- define "to.controllerMounts" -}}
{{- $ca := include "to.caMount" . }}
{{- if or $ca .Values.mailTemplates .Values.controller.extraVolumeMounts }}
volumeMounts:
  {{- with $ca }}
  {{- . | nindent 2 }}
  {{- end }}
  {{- if .Values.mailTemplates }}
  - {name: mail-templates, mountPath: /etc/tenant-operator/mail, readOnly: true}
  {{- end }}
  {{- with .Values.controller.extraVolumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}
{{- end -}}

{{/* What only web knows. */}}
{{- define "to.webEnv" -}}
{{- include "to.env" . }}
# What was served while the ledger was away, until it is delivered.
- name: LEDGER_JOURNAL
  value: /var/lib/tenant-operator/journal
- name: BRAND_COLOR
  value: {{ .Values.brandColor | quote }}
- name: TERMS_URL
  value: {{ .Values.termsUrl | quote }}
- name: PRIVACY_URL
  value: {{ .Values.privacyUrl | quote }}
- name: ONBOARDING_CALL_URL
  value: {{ .Values.onboardingCallUrl | quote }}
- name: WAITLIST
  value: {{ .Values.waitlist | quote }}
- name: CAPTCHA_PROVIDER
  value: {{ .Values.captcha.provider | quote }}
- name: CAPTCHA_SITE_KEY
  value: {{ .Values.captcha.siteKey | quote }}
{{- if .Values.disposableDomains }}
- name: DISPOSABLE_DOMAINS
  value: /etc/tenant-operator/disposable/domains
{{- end }}
- name: TERMS_VERSION
  value: {{ .Values.termsVersion | quote }}
- name: CLIENT_IP_SOURCE
  value: {{ .Values.web.clientIp | quote }}
- name: UPLOAD_LIMIT
  value: {{ include "to.duration" .Values.uploadLimit | quote }}
- name: LEADS_PER_DAY
  value: {{ int64 .Values.leads.perDay | quote }}
- name: LEADS_LIMIT
  value: {{ int64 .Values.leads.limit | quote }}
- name: SALES_REPLY
  value: {{ .Values.leads.salesReply | quote }}
- name: SIGNUPS_PER_MINUTE
  value: {{ .Values.web.signupsPerMinute | quote }}
{{- if .Values.sandbox.enabled }}
- name: STRIPE_WEBHOOK_SECRET
  value: whsec_sandbox
- name: STRIPE_URL
  value: http://{{ printf "%s-sandbox.%s.svc" (include "to.name" .) .Release.Namespace }}:9001
- name: STRIPE_PORTAL_KEY
  value: rk_test_sandbox
- name: ALERT_WEBHOOK_URL
  value: http://{{ printf "%s-sandbox.%s.svc" (include "to.name" .) .Release.Namespace }}:9000/_sandbox/alerts
{{- else }}
- name: STRIPE_URL
  value: {{ .Values.stripe.url | quote }}
{{- end }}
{{- with default .Values.exports.existingSecret .Values.exports.webExistingSecret }}
{{- include "to.exportsEnv" . }}
{{- end }}
{{- $pinecone := ternary "webPineconeApiKey" "pineconeApiKey" (ne .Values.credentials.webPineconeApiKey.existingSecret "") }}
{{- $openai := ternary "webOpenaiApiKey" "openaiApiKey" (ne .Values.credentials.webOpenaiApiKey.existingSecret "") }}
{{- include "to.secretEnv" (dict "root" . "credential" $pinecone "env" "PINECONE_API_KEY") }}
{{- include "to.secretEnv" (dict "root" . "credential" $openai "env" "OPENAI_API_KEY") }}
{{- include "to.secretEnv" (dict "root" . "credential" "stripePortalKey" "env" "STRIPE_PORTAL_KEY") }}
{{- include "to.secretEnv" (dict "root" . "credential" "captchaSecretKey" "env" "CAPTCHA_SECRET_KEY") }}
{{- include "to.secretEnv" (dict "root" . "credential" "alertWebhookUrl" "env" "ALERT_WEBHOOK_URL") }}
{{- include "to.secretEnv" (dict "root" . "credential" "usageEventsToken" "env" "USAGE_EVENTS_TOKEN") }}
{{- include "to.secretEnv" (dict "root" . "credential" "stripeWebhookSecret" "env" "STRIPE_WEBHOOK_SECRET") }}
{{- end -}}

{{/* How and where a pod runs: (dict "root" $ "component" "web") */}}
{{- define "to.scheduling" -}}
{{- $of := index .root.Values .component -}}
automountServiceAccountToken: true
{{- /* Web serves requests with idempotency keys to their end, for a minute, and waits up to 3 minutes for a ledger that is
away to take what web's journal holds. */}}
terminationGracePeriodSeconds: {{ eq .component "web" | ternary 300 30 }}
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  fsGroup: 65532
  seccompProfile: {type: RuntimeDefault}
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- with $of.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with $of.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $of.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $of.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
topologySpreadConstraints:
{{- with $of.topologySpreadConstraints }}
  {{- toYaml . | nindent 2 }}
{{- else }}
  {{- range list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
  - maxSkew: 1
    topologyKey: {{ . }}
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "to.selector" $ | nindent 8 }}
  {{- end }}
{{- end }}
{{- $templates := and (eq .component "controller") .root.Values.mailTemplates }}
{{- $domains := and (eq .component "web") .root.Values.disposableDomains }}
{{- $ledger := ne .component "controller" }}
{{- $ca := include "to.caVolume" .root }}
{{- if or $ca $of.extraVolumes $templates $ledger }}
volumes:
  {{- if eq .component "web" }}
  # Counts of questions while the ledger is away: 300 bytes each.
  - name: journal
    emptyDir: {sizeLimit: 128Mi}
  {{- end }}
  {{- if eq .component "ledger" }}
  {{- include "to.ledgerVolumes" .root | nindent 2 }}
  {{- end }}
  {{- with $ca }}
  {{- . | nindent 2 }}
  {{- end }}
  {{- if $templates }}
  - name: mail-templates
    configMap: {name: {{ $templates }}}
  {{- end }}
  {{- if $domains }}
  - name: disposable-domains
    configMap: {name: {{ $domains }}}
  {{- end }}
  {{- with $of.extraVolumes }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}
{{- end -}}

{{/* The same for every container. */}}
{{- define "to.container" -}}
image: {{ include "to.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
# So that `kubectl describe pod` shows why a container ended.
terminationMessagePolicy: FallbackToLogsOnError
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end -}}
