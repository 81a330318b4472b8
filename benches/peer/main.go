// A tuned controller-runtime operator that takes Tenants billed by hand to Active, for `make bench` to compare with:
// the same calls to Kubernetes and Pinecone as ours, without Events, e-mails, retries and everything else.
package main

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"flag"
	"fmt"
	"os"
	"time"

	"github.com/go-logr/logr/funcr"
	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/config"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"
)

const finalizer = "tenant-operator.dev/cleanup"

type operator struct {
	client.Client
	pinecone *pinecone
	signer   ed25519.PrivateKey
	// Whether the write of Provisioning waits for the one of Active, as ours does.
	held bool
}

func main() {
	namespace := flag.String("namespace", "default", "the namespace to watch")
	concurrency := flag.Int("concurrency", 64, "tenants at the same time")
	held := flag.Bool("held", false, "write Provisioning together with Active")
	flag.Parse()
	if err := run(*namespace, *concurrency, *held); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(namespace string, concurrency int, held bool) error {
	// Errors alone.
	ctrl.SetLogger(funcr.New(func(_, text string) { fmt.Fprintln(os.Stderr, text) }, funcr.Options{Verbosity: -1}))
	ctx := ctrl.SetupSignalHandler()
	scheme := runtime.NewScheme()
	if err := clientgoscheme.AddToScheme(scheme); err != nil {
		return err
	}
	addTenants(scheme)
	kube, err := config.GetConfig()
	if err != nil {
		return err
	}
	// No limit on our side: the API server has its own.
	kube.QPS, kube.Burst = -1, -1
	manager, err := ctrl.NewManager(kube, ctrl.Options{
		Scheme:  scheme,
		Metrics: server.Options{BindAddress: "0"},
		Cache: cache.Options{
			DefaultNamespaces: map[string]cache.Config{namespace: {}},
			DefaultTransform:  cache.TransformStripManagedFields(),
		},
	})
	if err != nil {
		return err
	}
	_, signer, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	pinecone, err := connect(ctx)
	if err != nil {
		return err
	}
	err = ctrl.NewControllerManagedBy(manager).
		For(&Tenant{}).
		WithOptions(controller.Options{MaxConcurrentReconciles: concurrency}).
		Complete(&operator{manager.GetClient(), pinecone, signer, held})
	if err != nil {
		return err
	}
	return manager.Start(ctx)
}

func (o *operator) Reconcile(ctx context.Context, request ctrl.Request) (ctrl.Result, error) {
	var cached Tenant
	if err := o.Get(ctx, request.NamespacedName, &cached); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	if cached.Status.Phase == "Active" || cached.DeletionTimestamp != nil || !cached.Spec.Billing.Approved {
		return ctrl.Result{}, nil
	}
	tenant := cached.copy()
	if err := o.identify(ctx, tenant); err != nil {
		return retried(err)
	}
	if tenant.Status.Phase == "" {
		tenant.Status.begin()
		if !o.held {
			if err := o.Status().Update(ctx, tenant); err != nil {
				return retried(err)
			}
		}
	}
	namespace := "tenant_" + string(tenant.UID)
	group, parts := errgroup.WithContext(ctx)
	group.Go(func() error { return o.secret(parts, tenant, namespace) })
	group.Go(func() error { return o.pinecone.provision(parts, namespace) })
	if err := group.Wait(); err != nil {
		return retried(err)
	}
	tenant.Status.complete(namespace, tenant.Name+"-api-key")
	return retried(o.Status().Update(ctx, tenant))
}

// What a newer object refuses is decided again when that one arrives.
func retried(err error) (ctrl.Result, error) {
	if apierrors.IsConflict(err) {
		return ctrl.Result{RequeueAfter: 200 * time.Millisecond}, nil
	}
	return ctrl.Result{}, err
}

// The id, the finalizer and the label in one patch.
func (o *operator) identify(ctx context.Context, tenant *Tenant) error {
	if tenant.Spec.TenantID != "" {
		return nil
	}
	before := tenant.copy()
	controllerutil.AddFinalizer(tenant, finalizer)
	proof := ed25519.Sign(o.signer, []byte(tenant.UID))
	encoded := base64.RawURLEncoding.EncodeToString(proof)
	tenant.Labels = map[string]string{"tenant-operator.dev/email-hash": hex.EncodeToString(proof[:16])}
	tenant.Annotations = map[string]string{"tenant-operator.dev/identity-proof": encoded[:43]}
	tenant.Spec.TenantID = string(tenant.UID)
	return o.Patch(ctx, tenant, client.MergeFrom(before))
}

func (o *operator) secret(ctx context.Context, tenant *Tenant, namespace string) error {
	claims := fmt.Appendf(nil, `{"sub":%q,"ns":%q,"plan":%q,"kid":"1"}`, tenant.UID, namespace, tenant.Spec.Plan)
	key := base64.RawURLEncoding.EncodeToString(claims) + "." +
		base64.RawURLEncoding.EncodeToString(ed25519.Sign(o.signer, claims))
	err := o.Create(ctx, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{
			Name: tenant.Name + "-api-key", Namespace: tenant.Namespace,
			Labels: map[string]string{
				"tenant-operator.dev/tenant": tenant.Name, "app.kubernetes.io/managed-by": "tenant-operator",
			},
			OwnerReferences: []metav1.OwnerReference{{
				APIVersion: groupVersion.String(), Kind: "Tenant", Name: tenant.Name, UID: tenant.UID,
				Controller: ptr.To(true),
			}},
		},
		Data: map[string][]byte{"api-key": []byte(key), "key-id": []byte("1"), "namespace": []byte(namespace)},
	})
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	return err
}
