// netpol enforces NetworkPolicy on the one node of the development cluster: it watches pods, namespaces
// and policies and keeps one nftables table that says the same.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"syscall"
	"time"

	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	networkinglisters "k8s.io/client-go/listers/networking/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
)

func main() {
	if command := os.Getenv("CNI_COMMAND"); command != "" {
		if err := runCNI(command, os.Stdin, os.Stdout); err != nil {
			reply, _ := json.Marshal(map[string]any{"cniVersion": "1.0.0", "code": 11, "msg": err.Error()})
			fmt.Println(string(reply))
			os.Exit(1)
		}
		return
	}
	bridge := flag.String("bridge", "fh0", "bridge that the pods are plugged into")
	kubeconfig := flag.String("kubeconfig", "", "how to reach the API server")
	socket := flag.String("socket", "", "unix socket on which the CNI plugin announces new pods")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	if err := run(ctx, *bridge, *kubeconfig, *socket); err != nil {
		log.Fatal(err)
	}
}

// enforcer owns all state in one goroutine; informers and the socket only send it messages.
type enforcer struct {
	bridge     string
	pods       corelisters.PodLister
	namespaces corelisters.NamespaceLister
	policies   networkinglisters.NetworkPolicyLister
	assigned   map[string]address // by pod UID: what CNI gave, before the API shows it
	loaded     string
}

// waiting is an announced pod whose plugin has not been answered yet; after until nobody listens.
type waiting struct {
	announcement
	answer chan<- string
	until  time.Time
}

func run(ctx context.Context, bridge, kubeconfig, socket string) error {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return fmt.Errorf("kubeconfig %s: %w", kubeconfig, err)
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	factory := informers.NewSharedInformerFactory(client, 0)
	e := &enforcer{
		bridge:     bridge,
		pods:       factory.Core().V1().Pods().Lister(),
		namespaces: factory.Core().V1().Namespaces().Lister(),
		policies:   factory.Networking().V1().NetworkPolicies().Lister(),
		assigned:   map[string]address{},
	}
	changed := make(chan struct{}, 1)
	notify := func() {
		select {
		case changed <- struct{}{}:
		default:
		}
	}
	handler := cache.ResourceEventHandlerFuncs{
		AddFunc:    func(any) { notify() },
		UpdateFunc: func(any, any) { notify() },
		DeleteFunc: func(any) { notify() },
	}
	for _, informer := range []cache.SharedIndexInformer{
		factory.Core().V1().Pods().Informer(),
		factory.Core().V1().Namespaces().Informer(),
		factory.Networking().V1().NetworkPolicies().Informer(),
	} {
		if _, err := informer.AddEventHandler(handler); err != nil {
			return err
		}
	}
	factory.Start(ctx.Done())
	factory.WaitForCacheSync(ctx.Done())

	announced, err := listen(ctx, socket)
	if err != nil {
		return err
	}
	return e.loop(ctx, changed, announced)
}

func (e *enforcer) loop(ctx context.Context, changed <-chan struct{}, announced <-chan waiting) error {
	var queue []waiting
	var told string
	retry := time.NewTimer(0)
	for {
		select {
		case <-ctx.Done():
			return nil
		case pod := <-announced:
			e.assigned[pod.UID] = pod.address
			queue = append(queue, pod)
		case <-changed:
		case <-retry.C:
		}
		queue = slices.DeleteFunc(queue, func(pod waiting) bool { return time.Now().After(pod.until) })
		state, err := e.state(queue)
		if err == nil {
			err = e.load(ctx, Render(e.bridge, state))
		}
		if err != nil {
			if told != err.Error() {
				told = err.Error()
				log.Printf("rules not loaded, trying again every second: %v", err)
			}
			retry.Reset(time.Second)
			continue
		}
		told = ""
		queue = answer(queue, state)
	}
}

// answer releases the plugins whose pods now have rules and keeps the others.
func answer(queue []waiting, state State) []waiting {
	ready := map[string]bool{}
	for _, pod := range state.Pods {
		ready[pod.Namespace+"/"+pod.Name+"/"+pod.IP] = true
	}
	var rest []waiting
	for _, pod := range queue {
		if ready[pod.Namespace+"/"+pod.Name+"/"+pod.IP] {
			pod.answer <- "ok"
		} else {
			rest = append(rest, pod)
		}
	}
	return rest
}

// state reads the caches, and forgets the assigned addresses of pods that are gone.
func (e *enforcer) state(queue []waiting) (State, error) {
	state := State{Namespaces: map[string]labels.Set{}}
	pods, err := e.pods.List(labels.Everything())
	if err != nil {
		return state, err
	}
	byIP, kept := map[string]Pod{}, map[string]address{}
	for _, pod := range queue {
		kept[pod.UID] = pod.address
	}
	for _, object := range pods {
		assigned, announced := e.assigned[string(object.UID)]
		if announced {
			kept[string(object.UID)] = assigned
		}
		pod, ok := podOf(object, assigned)
		if _, taken := byIP[pod.IP]; ok && (!taken || announced) {
			byIP[pod.IP] = pod
		}
	}
	e.assigned = kept
	for _, pod := range byIP {
		state.Pods = append(state.Pods, pod)
	}
	namespaces, err := e.namespaces.List(labels.Everything())
	if err != nil {
		return state, err
	}
	for _, namespace := range namespaces {
		state.Namespaces[namespace.Name] = namespace.Labels
	}
	state.Policies, err = e.policies.List(labels.Everything())
	return state, err
}

func (e *enforcer) load(ctx context.Context, script string) error {
	if script == e.loaded {
		return nil
	}
	nft := exec.CommandContext(ctx, "nft", "-f", "-")
	nft.Stdin = bytes.NewBufferString(script)
	if output, err := nft.CombinedOutput(); err != nil {
		return fmt.Errorf("nft: %w: %s", err, output)
	}
	e.loaded = script
	return nil
}

// listen accepts announcements; each connection waits for its answer or gives up with the plugin.
func listen(ctx context.Context, socket string) (<-chan waiting, error) {
	announced := make(chan waiting)
	if socket == "" {
		return announced, nil
	}
	if err := os.Remove(socket); err != nil && !os.IsNotExist(err) {
		return nil, err
	}
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return nil, err
	}
	context.AfterFunc(ctx, func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go serve(ctx, conn, announced)
		}
	}()
	return announced, nil
}

func serve(ctx context.Context, conn net.Conn, announced chan<- waiting) {
	defer conn.Close()
	answer := make(chan string, 1)
	pod := waiting{answer: answer, until: time.Now().Add(cniPatience)}
	reply := "the enforcer stopped"
	if err := json.NewDecoder(conn).Decode(&pod.announcement); err != nil {
		reply = "bad announcement: " + err.Error()
	} else {
		announced <- pod
		select {
		case reply = <-answer:
		case <-time.After(cniPatience):
			reply = "the API has not shown this pod"
		case <-ctx.Done():
		}
	}
	if _, err := conn.Write([]byte(reply)); err != nil {
		log.Printf("answering the CNI plugin for %s/%s: %v", pod.Namespace, pod.Name, err)
	}
}
