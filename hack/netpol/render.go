package main

import (
	"fmt"
	"net/netip"
	"sort"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
)

// table is ours alone, in two families; a load replaces both whole, in one transaction.
const table = "freehold_netpol"

// openMark tells the inet table that both ends of a bridged packet are open: the bridge family knows the
// links but not, on every kernel, the bridge; the inet family the bridge but not the links.
const openMark = "0x0f2e0001" // without 0x4000, which would make kube-proxy masquerade

// Render writes the rules for a state as one nft script. The order of the check chain matters: answers
// pass; unknown senders on the bridge are dropped (a pod could otherwise speak before its rules are
// loaded); then the sender's chain and the receiver's chain each have their say. The priority is after
// destination translation, so rules see pods' addresses, never services'. Traffic from the node itself
// leaves by the output hook: untouched.
//
// Pods also reach one another over IPv6 link-local addresses, which no policy names. The bridge carries
// IPv6 only between pods that no policy selects, recognised by their links; the node takes none.
func Render(bridge string, state State) string {
	pods := append([]Pod(nil), state.Pods...)
	sort.Slice(pods, func(i, j int) bool { return pods[i].IP < pods[j].IP })

	var chains strings.Builder
	var known, egress, ingress, open []string
	for _, pod := range pods {
		known = append(known, pod.IP)
		out, noEgress := state.Rules(pod, Egress)
		in, noIngress := state.Rules(pod, Ingress)
		if noEgress {
			egress = append(egress, renderChain(&chains, "egress", "daddr", pod, out))
		}
		if noIngress {
			ingress = append(ingress, renderChain(&chains, "ingress", "saddr", pod, in))
		}
		if !noEgress && !noIngress && pod.Link != "" {
			open = append(open, fmt.Sprintf("%q", pod.Link))
		}
	}

	var out strings.Builder
	for _, family := range []string{"inet", "bridge"} {
		fmt.Fprintf(&out, "add table %s %s\ndelete table %s %s\n", family, table, family, table)
	}
	fmt.Fprintf(&out, "table inet %s {\n", table)
	fmt.Fprintf(&out, "\tset pods { type ipv4_addr; %s}\n", elements(known))
	fmt.Fprintf(&out, "\tmap egress { type ipv4_addr : verdict; %s}\n", elements(egress))
	fmt.Fprintf(&out, "\tmap ingress { type ipv4_addr : verdict; %s}\n", elements(ingress))
	out.WriteString(chains.String())
	fmt.Fprintf(&out, `	chain check {
		ct state established,related accept
		iifname %[1]q ip saddr != @pods drop
		ip saddr vmap @egress
		ip daddr vmap @ingress
	}
	chain forward {
		type filter hook forward priority -5; policy accept;
		iifname %[1]q oifname %[1]q meta mark %[4]s meta nfproto ipv6 accept
		iifname %[1]q meta nfproto ipv6 drop
		iifname %[1]q jump check
		oifname %[1]q iifname != %[1]q jump check
	}
	chain input {
		type filter hook input priority -5; policy accept;
		iifname %[1]q meta nfproto ipv6 drop
		iifname %[1]q jump check
	}
}
table bridge %[2]s {
	set open { type ifname; %[3]s}
	chain forward {
		type filter hook forward priority -10; policy accept;
		ether type ip6 iifname @open oifname @open meta mark set %[4]s
	}
}
`, bridge, table, elements(open), openMark)
	return out.String()
}

// renderChain writes a pod's chain, which returns on a match and otherwise drops, and answers with the
// verdict-map element that leads to it.
func renderChain(out *strings.Builder, side, address string, pod Pod, allows []Allow) string {
	name := side + "_" + strings.ReplaceAll(pod.IP, ".", "_")
	fmt.Fprintf(out, "\tchain %s { # %s/%s\n", name, pod.Namespace, pod.Name)
	for _, allow := range allows {
		for _, rule := range renderAllow(address, allow) {
			fmt.Fprintf(out, "\t\t%sreturn\n", rule)
		}
	}
	out.WriteString("\t\tdrop\n\t}\n")
	return pod.IP + " : jump " + name
}

func renderAllow(address string, allow Allow) []string {
	peers, ok := renderPeers(address, allow)
	if !ok {
		return nil
	}
	if len(allow.Ports) == 0 {
		return []string{peers}
	}
	var rules []string
	for _, port := range allow.Ports {
		rules = append(rules, peers+renderPort(port))
	}
	return rules
}

// renderPeers is not ok when only IPv6 is left to allow, which the bridge does not carry.
func renderPeers(address string, allow Allow) (string, bool) {
	if allow.Peers == nil {
		return "", true
	}
	peers := ipv4(allow.Peers)
	if len(peers) == 0 {
		return "", false
	}
	text := fmt.Sprintf("ip %s { %s } ", address, strings.Join(peers, ", "))
	for _, hole := range ipv4(allow.Except) { // one match each: holes may overlap, a set's intervals may not
		text += fmt.Sprintf("ip %s != %s ", address, hole)
	}
	return text, true
}

func renderPort(port PortRange) string {
	protocol := strings.ToLower(string(port.Protocol))
	switch {
	case port.First == 0:
		return "meta l4proto " + protocol + " "
	case port.First == port.Last:
		return fmt.Sprintf("%s dport %d ", protocol, port.First)
	default:
		return fmt.Sprintf("%s dport %d-%d ", protocol, port.First, port.Last)
	}
}

func elements(items []string) string {
	if len(items) == 0 {
		return ""
	}
	return "elements = { " + strings.Join(items, ", ") + " }; "
}

// ipv4 keeps the IPv4 addresses and blocks, the latter without host bits as nft wants them.
func ipv4(blocks []string) []string {
	var result []string
	for _, block := range blocks {
		if prefix, err := netip.ParsePrefix(block); err == nil {
			if prefix.Addr().Is4() {
				result = append(result, prefix.Masked().String())
			}
		} else if address, err := netip.ParseAddr(block); err == nil && address.Is4() {
			result = append(result, block)
		}
	}
	return result
}

// blockHolds tells whether an ipBlock covers an address.
func blockHolds(block *networkingv1.IPBlock, ip string) bool {
	address, err := netip.ParseAddr(ip)
	if err != nil {
		return false
	}
	prefix, err := netip.ParsePrefix(block.CIDR)
	if err != nil || !prefix.Contains(address) {
		return false
	}
	for _, hole := range block.Except {
		if prefix, err := netip.ParsePrefix(hole); err == nil && prefix.Contains(address) {
			return false
		}
	}
	return true
}

// podOf is what the enforcer needs of an API object; ok is false for pods without an own, live address.
func podOf(object *corev1.Pod, assigned address) (Pod, bool) {
	ip := object.Status.PodIP
	if assigned.IP != "" {
		ip = assigned.IP
	}
	over := object.Status.Phase == corev1.PodSucceeded || object.Status.Phase == corev1.PodFailed
	if ip == "" || object.Spec.HostNetwork || over {
		return Pod{}, false
	}
	pod := Pod{Namespace: object.Namespace, Name: object.Name, IP: ip, Link: assigned.Link, Labels: object.Labels}
	for _, container := range object.Spec.InitContainers {
		pod.Ports = append(pod.Ports, container.Ports...)
	}
	for _, container := range object.Spec.Containers {
		pod.Ports = append(pod.Ports, container.Ports...)
	}
	return pod, true
}
