package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"
)

// As the last plugin of the CNI chain this program tells the enforcer a new pod's address and waits
// until the pod's rules are loaded. A container thus never runs without its policies, and never has to
// wait for the API to show its address either. Without an enforcer no pod gets a network.

const cniPatience = 20 * time.Second

// announcement is what the plugin sends over the enforcer's socket; the answer is empty or an error.
type announcement struct {
	Namespace, Name, UID string
	address
}

// address is where a pod is plugged in: its IPv4 address and the host's end of its cable.
type address struct {
	IP, Link string
}

// runCNI serves one call of the container runtime: CNI_COMMAND and CNI_ARGS in the environment, the
// network configuration with the previous plugin's result on standard input.
func runCNI(command string, in io.Reader, out io.Writer) error {
	var config struct {
		CNIVersion string          `json:"cniVersion"`
		PrevResult json.RawMessage `json:"prevResult"`
		Socket     string          `json:"socket"`
	}
	if command == "VERSION" {
		_, err := io.WriteString(out, `{"cniVersion":"1.0.0","supportedVersions":["0.4.0","1.0.0"]}`)
		return err
	}
	if err := json.NewDecoder(in).Decode(&config); err != nil {
		return fmt.Errorf("network configuration: %w", err)
	}
	if command != "ADD" {
		return nil
	}
	pod, err := podFromCNI(os.Getenv("CNI_ARGS"), config.PrevResult)
	if err != nil {
		return err
	}
	if err := announce(config.Socket, pod); err != nil {
		return err
	}
	_, err = out.Write(config.PrevResult)
	return err
}

func podFromCNI(args string, previous []byte) (announcement, error) {
	var pod announcement
	for _, pair := range strings.Split(args, ";") {
		key, value, _ := strings.Cut(pair, "=")
		switch key {
		case "K8S_POD_NAMESPACE":
			pod.Namespace = value
		case "K8S_POD_NAME":
			pod.Name = value
		case "K8S_POD_UID":
			pod.UID = value
		}
	}
	var result struct {
		Interfaces []struct {
			Name    string `json:"name"`
			Sandbox string `json:"sandbox"`
		} `json:"interfaces"`
		IPs []struct {
			Address string `json:"address"`
		} `json:"ips"`
	}
	if err := json.Unmarshal(previous, &result); err != nil {
		return pod, fmt.Errorf("prevResult: %w", err)
	}
	for _, ip := range result.IPs {
		if parsed, _, err := net.ParseCIDR(ip.Address); err == nil && parsed.To4() != nil {
			pod.IP = parsed.String()
		}
	}
	for _, link := range result.Interfaces {
		if link.Sandbox == "" && strings.HasPrefix(link.Name, "veth") {
			pod.Link = link.Name
		}
	}
	if pod.Name == "" || pod.IP == "" {
		return pod, fmt.Errorf("no pod name in CNI_ARGS %q or no IPv4 address in prevResult %s", args, previous)
	}
	return pod, nil
}

func announce(socket string, pod announcement) error {
	conn, err := net.DialTimeout("unix", socket, cniPatience)
	if err != nil {
		return fmt.Errorf("the NetworkPolicy enforcer does not answer: %w", err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(cniPatience)); err != nil {
		return err
	}
	if err := json.NewEncoder(conn).Encode(pod); err != nil {
		return fmt.Errorf("telling the NetworkPolicy enforcer: %w", err)
	}
	answer, err := io.ReadAll(conn)
	if err != nil {
		return fmt.Errorf("waiting for rules of pod %s/%s: %w", pod.Namespace, pod.Name, err)
	}
	if string(answer) != "ok" {
		return fmt.Errorf("rules of pod %s/%s: %s", pod.Namespace, pod.Name, answer)
	}
	return nil
}
