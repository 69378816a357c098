package main

import (
	"fmt"
	"os/exec"
	"reflect"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
)

func pod(namespace, name, ip string, set labels.Set, ports ...corev1.ContainerPort) Pod {
	link := "veth" + ip[strings.LastIndex(ip, ".")+1:]
	return Pod{Namespace: namespace, Name: name, IP: ip, Link: link, Labels: set, Ports: ports}
}

func policy(namespace string, spec networkingv1.NetworkPolicySpec) *networkingv1.NetworkPolicy {
	return &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: namespace}, Spec: spec}
}

func selector(key, value string) *metav1.LabelSelector {
	return &metav1.LabelSelector{MatchLabels: map[string]string{key: value}}
}

func port(value intstr.IntOrString) networkingv1.NetworkPolicyPort {
	return networkingv1.NetworkPolicyPort{Port: &value}
}

var (
	trainer = pod("lease", "trainer", "10.101.0.10", labels.Set{"app": "trainer"})
	gateway = pod("provider", "gateway", "10.101.0.20", labels.Set{"app": "gateway"},
		corev1.ContainerPort{Name: "http", ContainerPort: 8080})
	other = pod("provider", "other", "10.101.0.30", labels.Set{"app": "other"})
)

func cluster(policies ...*networkingv1.NetworkPolicy) State {
	return State{
		Pods: []Pod{trainer, gateway, other},
		Namespaces: map[string]labels.Set{
			"lease":    {"kind": "lease"},
			"provider": {"kind": "provider"},
		},
		Policies: policies,
	}
}

func TestPolicyTypesDecideWhoIsIsolated(t *testing.T) {
	both := []networkingv1.PolicyType{networkingv1.PolicyTypeIngress, networkingv1.PolicyTypeEgress}
	cases := map[string]struct {
		spec            networkingv1.NetworkPolicySpec
		ingress, egress bool
	}{
		"no types means ingress":             {networkingv1.NetworkPolicySpec{}, true, false},
		"no types with egress rules is both": {networkingv1.NetworkPolicySpec{Egress: []networkingv1.NetworkPolicyEgressRule{{}}}, true, true},
		"both":                               {networkingv1.NetworkPolicySpec{PolicyTypes: both}, true, true},
		"egress only":                        {networkingv1.NetworkPolicySpec{PolicyTypes: both[1:]}, false, true},
		"another pod":                        {networkingv1.NetworkPolicySpec{PodSelector: *selector("app", "x"), PolicyTypes: both}, false, false},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			state := cluster(policy("lease", c.spec))
			for direction, want := range map[Direction]bool{Ingress: c.ingress, Egress: c.egress} {
				if _, isolated := state.Rules(trainer, direction); isolated != want {
					t.Errorf("direction %d: isolated %v, want %v", direction, isolated, want)
				}
				if _, isolated := state.Rules(gateway, direction); isolated {
					t.Errorf("direction %d: a policy reached into another namespace", direction)
				}
			}
		})
	}
}

func TestPeersResolveToAddresses(t *testing.T) {
	cases := map[string]struct {
		peer networkingv1.NetworkPolicyPeer
		want []Allow
	}{
		"pods of the own namespace": {
			networkingv1.NetworkPolicyPeer{PodSelector: &metav1.LabelSelector{}},
			[]Allow{{Peers: []string{"10.101.0.10"}}},
		},
		"all pods of chosen namespaces": {
			networkingv1.NetworkPolicyPeer{NamespaceSelector: selector("kind", "provider")},
			[]Allow{{Peers: []string{"10.101.0.20", "10.101.0.30"}}},
		},
		"chosen pods of chosen namespaces": {
			networkingv1.NetworkPolicyPeer{NamespaceSelector: selector("kind", "provider"), PodSelector: selector("app", "gateway")},
			[]Allow{{Peers: []string{"10.101.0.20"}}},
		},
		"nobody matches": {
			networkingv1.NetworkPolicyPeer{PodSelector: selector("app", "gateway")},
			nil,
		},
		"a block with a hole": {
			networkingv1.NetworkPolicyPeer{IPBlock: &networkingv1.IPBlock{CIDR: "10.0.0.0/8", Except: []string{"10.101.0.0/16"}}},
			[]Allow{{Peers: []string{"10.0.0.0/8"}, Except: []string{"10.101.0.0/16"}}},
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			state := cluster(policy("lease", networkingv1.NetworkPolicySpec{
				Egress: []networkingv1.NetworkPolicyEgressRule{{To: []networkingv1.NetworkPolicyPeer{c.peer}}},
			}))
			got, _ := state.Rules(trainer, Egress)
			if !reflect.DeepEqual(got, c.want) {
				t.Errorf("got %+v, want %+v", got, c.want)
			}
		})
	}
}

func TestPortsInBothDirections(t *testing.T) {
	udp := corev1.ProtocolUDP
	last := int32(9100)
	ranged := port(intstr.FromInt32(9000))
	ranged.EndPort = &last
	ports := []networkingv1.NetworkPolicyPort{port(intstr.FromString("http")), port(intstr.FromInt32(443)), ranged, {Protocol: &udp}}
	numbers := []PortRange{{corev1.ProtocolTCP, 443, 443}, {corev1.ProtocolTCP, 9000, 9100}, {Protocol: udp}}
	named := PortRange{corev1.ProtocolTCP, 8080, 8080}

	in := cluster(policy("provider", networkingv1.NetworkPolicySpec{
		Ingress: []networkingv1.NetworkPolicyIngressRule{{Ports: ports}},
	}))
	got, _ := in.Rules(gateway, Ingress)
	if want := []Allow{{Ports: append(append([]PortRange{}, numbers...), named)}}; !reflect.DeepEqual(got, want) {
		t.Errorf("ingress: got %+v, want %+v", got, want)
	}

	out := cluster(policy("lease", networkingv1.NetworkPolicySpec{
		Egress: []networkingv1.NetworkPolicyEgressRule{{
			Ports: ports,
			To:    []networkingv1.NetworkPolicyPeer{{NamespaceSelector: &metav1.LabelSelector{}}},
		}},
	}))
	got, _ = out.Rules(trainer, Egress)
	want := []Allow{
		{Peers: []string{"10.101.0.10", "10.101.0.20", "10.101.0.30"}, Ports: numbers},
		{Peers: []string{"10.101.0.20"}, Ports: []PortRange{named}}, // the only pod with a port of that name
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("egress: got %+v, want %+v", got, want)
	}
}

// A named port that no pod has must allow nothing, not everything.
func TestUnknownNamedPortAllowsNothing(t *testing.T) {
	state := cluster(policy("provider", networkingv1.NetworkPolicySpec{
		Ingress: []networkingv1.NetworkPolicyIngressRule{{Ports: []networkingv1.NetworkPolicyPort{port(intstr.FromString("none"))}}},
	}))
	if got, isolated := state.Rules(gateway, Ingress); !isolated || len(got) != 0 {
		t.Errorf("got %+v isolated %v, want no rule and isolation", got, isolated)
	}
}

func TestRenderedTable(t *testing.T) {
	both := []networkingv1.PolicyType{networkingv1.PolicyTypeIngress, networkingv1.PolicyTypeEgress}
	state := cluster(
		policy("lease", networkingv1.NetworkPolicySpec{PolicyTypes: both}),
		policy("lease", networkingv1.NetworkPolicySpec{
			Egress: []networkingv1.NetworkPolicyEgressRule{{
				To: []networkingv1.NetworkPolicyPeer{
					{NamespaceSelector: selector("kind", "provider"), PodSelector: selector("app", "gateway")},
					{IPBlock: &networkingv1.IPBlock{CIDR: "192.0.2.7/24", Except: []string{"192.0.2.0/28", "192.0.2.8/29"}}},
					{IPBlock: &networkingv1.IPBlock{CIDR: "2001:db8::/32"}},
				},
				Ports: []networkingv1.NetworkPolicyPort{port(intstr.FromInt32(8080))},
			}},
		}),
	)
	script := Render("fh0", state)
	for _, want := range []string{
		"set pods { type ipv4_addr; elements = { 10.101.0.10, 10.101.0.20, 10.101.0.30 }; }",
		"map egress { type ipv4_addr : verdict; elements = { 10.101.0.10 : jump egress_10_101_0_10 }; }",
		"chain egress_10_101_0_10 { # lease/trainer\n" +
			"\t\tip daddr { 192.0.2.0/24 } ip daddr != 192.0.2.0/28 ip daddr != 192.0.2.8/29 tcp dport 8080 return\n" +
			"\t\tip daddr { 10.101.0.20 } tcp dport 8080 return\n\t\tdrop\n\t}",
		"chain ingress_10_101_0_10 { # lease/trainer\n\t\tdrop\n\t}",
		"ct state established,related accept\n\t\tiifname \"fh0\" ip saddr != @pods drop\n",
		"set open { type ifname; elements = { \"veth20\", \"veth30\" }; }",
	} {
		if !strings.Contains(script, want) {
			t.Errorf("missing:\n%s\nin:\n%s", want, script)
		}
	}
	if strings.Contains(script, "2001:db8") {
		t.Error("an IPv6 block reached the table")
	}
	if again := Render("fh0", state); again != script {
		t.Error("the same state gave another script")
	}
	checkWithNft(t, script)
	checkWithNft(t, Render("fh0", State{}))
}

// checkWithNft lets the real parser read the script where that is possible.
func checkWithNft(t *testing.T, script string) {
	t.Helper()
	if exec.Command("nft", "list", "tables").Run() != nil {
		t.Log("nft is not usable here: syntax not checked")
		return
	}
	nft := exec.Command("nft", "--check", "--file", "-")
	nft.Stdin = strings.NewReader(script)
	if output, err := nft.CombinedOutput(); err != nil {
		t.Errorf("nft refuses the script: %v\n%s\n%s", err, output, script)
	}
}

func TestPodsWithoutAnOwnAddressAreUnknown(t *testing.T) {
	running := corev1.Pod{Status: corev1.PodStatus{Phase: corev1.PodRunning, PodIP: "10.101.0.9"}}
	host := running
	host.Spec.HostNetwork = true
	done := running
	done.Status.Phase = corev1.PodSucceeded
	pending := corev1.Pod{}
	for name, c := range map[string]struct {
		pod      corev1.Pod
		assigned string
		want     string
	}{
		"running":                     {running, "", "10.101.0.9"},
		"assigned before the API":     {pending, "10.101.0.8", "10.101.0.8"},
		"assigned anew after restart": {running, "10.101.0.8", "10.101.0.8"},
		"pending":                     {pending, "", ""},
		"host network":                {host, "", ""},
		"finished":                    {done, "10.101.0.9", ""},
	} {
		got, ok := podOf(&c.pod, address{IP: c.assigned})
		if got.IP != c.want || ok != (c.want != "") {
			t.Errorf("%s: got %q %v, want %q", name, got.IP, ok, c.want)
		}
	}
}

func TestPodFromCNI(t *testing.T) {
	args := "IgnoreUnknown=1;K8S_POD_NAMESPACE=lease;K8S_POD_NAME=trainer;K8S_POD_UID=u1"
	result := `{"cniVersion":"1.0.0","interfaces":[{"name":"fh0"},{"name":"veth1234"},{"name":"eth0","sandbox":"/n"}],"ips":[{"address":"10.101.0.10/16"}]}`
	got, err := podFromCNI(args, []byte(result))
	want := announcement{Namespace: "lease", Name: "trainer", UID: "u1", address: address{IP: "10.101.0.10", Link: "veth1234"}}
	if err != nil || got != want {
		t.Errorf("got %+v %v, want %+v", got, err, want)
	}
	for _, bad := range []string{`{}`, `{"ips":[{"address":"fe80::1/64"}]}`, `nonsense`} {
		if got, err := podFromCNI(args, []byte(bad)); err == nil {
			t.Errorf("prevResult %s was taken: %+v", bad, got)
		}
	}
	if _, err := podFromCNI("", []byte(result)); err == nil || !strings.Contains(fmt.Sprint(err), "CNI_ARGS") {
		t.Errorf("missing pod name: %v", err)
	}
}
