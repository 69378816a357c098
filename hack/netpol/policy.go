package main

import (
	"sort"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// Pod is what a policy can see of a pod that owns an address. Link is the host's end of its cable,
// empty where it is not known.
type Pod struct {
	Namespace, Name, IP string
	Link                string
	Labels              labels.Set
	Ports               []corev1.ContainerPort
}

// State is the whole input of a rendering; namespaces map a name to its labels.
type State struct {
	Pods       []Pod
	Namespaces map[string]labels.Set
	Policies   []*networkingv1.NetworkPolicy
}

// Direction is the side of a connection that a chain speaks of.
type Direction int

const (
	Ingress Direction = iota
	Egress
)

// Allow is one permitted kind of traffic: with any of Peers (nil: anybody), minus Except, on any of
// Ports (nil: any protocol and port).
type Allow struct {
	Peers  []string
	Except []string
	Ports  []PortRange
}

// PortRange is a protocol with the ports First to Last; both zero mean every port.
type PortRange struct {
	Protocol    corev1.Protocol
	First, Last int32
}

// Rules answers what a pod may do in a direction; isolated is false when no policy selects it.
func (s State) Rules(pod Pod, direction Direction) (allows []Allow, isolated bool) {
	for _, policy := range s.Policies {
		if policy.Namespace != pod.Namespace || !applies(policy, direction) || !matches(&policy.Spec.PodSelector, pod.Labels) {
			continue
		}
		isolated = true
		if direction == Ingress {
			for _, rule := range policy.Spec.Ingress {
				allows = append(allows, s.allows(pod, policy.Namespace, direction, rule.From, rule.Ports)...)
			}
			continue
		}
		for _, rule := range policy.Spec.Egress {
			allows = append(allows, s.allows(pod, policy.Namespace, direction, rule.To, rule.Ports)...)
		}
	}
	return allows, isolated
}

// applies follows the API's default: a policy without types speaks of ingress, and of egress if it has such rules.
func applies(policy *networkingv1.NetworkPolicy, direction Direction) bool {
	if len(policy.Spec.PolicyTypes) == 0 {
		return direction == Ingress || len(policy.Spec.Egress) > 0
	}
	wanted := networkingv1.PolicyTypeIngress
	if direction == Egress {
		wanted = networkingv1.PolicyTypeEgress
	}
	for _, kind := range policy.Spec.PolicyTypes {
		if kind == wanted {
			return true
		}
	}
	return false
}

// matches is false for a selector the API would have refused: it then selects nobody.
func matches(selector *metav1.LabelSelector, set labels.Set) bool {
	parsed, err := metav1.LabelSelectorAsSelector(selector)
	return err == nil && parsed.Matches(set)
}

// allows resolves one rule of a policy to addresses and port numbers.
func (s State) allows(pod Pod, namespace string, direction Direction,
	peers []networkingv1.NetworkPolicyPeer, ports []networkingv1.NetworkPolicyPort,
) []Allow {
	plain, named := splitPorts(ports)
	numbers := plain
	if direction == Ingress {
		// The ports are the pod's own, so a name has one meaning for all peers.
		numbers = append(numbers, namedPorts(pod, named)...)
	}
	var result []Allow
	if len(ports) == 0 || len(numbers) > 0 {
		result = s.toPeers(namespace, peers, numbers)
	}
	if direction == Egress && len(named) > 0 {
		result = append(result, s.toNamedPorts(namespace, peers, named)...)
	}
	return result
}

func (s State) toPeers(namespace string, peers []networkingv1.NetworkPolicyPeer, ports []PortRange) []Allow {
	if len(peers) == 0 {
		return []Allow{{Ports: ports}}
	}
	var result []Allow
	var addresses []string
	for _, peer := range peers {
		if peer.IPBlock != nil {
			result = append(result, Allow{Peers: []string{peer.IPBlock.CIDR}, Except: peer.IPBlock.Except, Ports: ports})
			continue
		}
		for _, other := range s.Pods {
			if s.selects(namespace, peer, other) {
				addresses = append(addresses, other.IP)
			}
		}
	}
	if len(addresses) > 0 {
		sort.Strings(addresses)
		result = append(result, Allow{Peers: unique(addresses), Ports: ports})
	}
	return result
}

// toNamedPorts: on the way out a port's name is looked up in each destination pod.
func (s State) toNamedPorts(namespace string, peers []networkingv1.NetworkPolicyPeer, named []networkingv1.NetworkPolicyPort) []Allow {
	var result []Allow
	for _, other := range s.Pods {
		ports := namedPorts(other, named)
		if len(ports) > 0 && s.reaches(namespace, peers, other) {
			result = append(result, Allow{Peers: []string{other.IP}, Ports: ports})
		}
	}
	return result
}

func (s State) reaches(namespace string, peers []networkingv1.NetworkPolicyPeer, pod Pod) bool {
	for _, peer := range peers {
		if peer.IPBlock != nil && blockHolds(peer.IPBlock, pod.IP) || peer.IPBlock == nil && s.selects(namespace, peer, pod) {
			return true
		}
	}
	return len(peers) == 0
}

func (s State) selects(namespace string, peer networkingv1.NetworkPolicyPeer, pod Pod) bool {
	if peer.NamespaceSelector == nil {
		if pod.Namespace != namespace {
			return false
		}
	} else if !matches(peer.NamespaceSelector, s.Namespaces[pod.Namespace]) {
		return false
	}
	return peer.PodSelector == nil || matches(peer.PodSelector, pod.Labels)
}

func splitPorts(ports []networkingv1.NetworkPolicyPort) (plain []PortRange, named []networkingv1.NetworkPolicyPort) {
	for _, port := range ports {
		switch {
		case port.Port == nil:
			plain = append(plain, PortRange{Protocol: protocolOf(port)})
		case port.Port.Type == intstr.String:
			named = append(named, port)
		default:
			last := port.Port.IntVal
			if port.EndPort != nil {
				last = *port.EndPort
			}
			plain = append(plain, PortRange{protocolOf(port), port.Port.IntVal, last})
		}
	}
	return plain, named
}

func namedPorts(pod Pod, named []networkingv1.NetworkPolicyPort) []PortRange {
	var result []PortRange
	for _, wanted := range named {
		for _, port := range pod.Ports {
			protocol := port.Protocol
			if protocol == "" {
				protocol = corev1.ProtocolTCP
			}
			if port.Name == wanted.Port.StrVal && protocol == protocolOf(wanted) {
				result = append(result, PortRange{protocol, port.ContainerPort, port.ContainerPort})
			}
		}
	}
	return result
}

func protocolOf(port networkingv1.NetworkPolicyPort) corev1.Protocol {
	if port.Protocol == nil {
		return corev1.ProtocolTCP
	}
	return *port.Protocol
}

func unique(sorted []string) []string {
	result := sorted[:0]
	for _, item := range sorted {
		if len(result) == 0 || result[len(result)-1] != item {
			result = append(result, item)
		}
	}
	return result
}
