package ec2

import (
	"regexp"
	"strings"
)

var sizeName = regexp.MustCompile(`^([a-z]+)(\d+)((?:[a-z-][a-z0-9-]*)?)\.[a-z0-9-]+$`)

// Arch tells the processor architecture of an instance type by its name: "arm64" or "x86_64", and "" for a name that is not
// built by the rule (family, generation, attributes, size: "m7gd.large"). Among the attributes, "g" says that the processor
// is a Graviton; beside it, Apple's and Nvidia's Grace ("gb") are ARM. It makes no call; a farm.CloneOptions takes it.
func Arch(size string) string {
	m := sizeName.FindStringSubmatch(size)
	if m == nil {
		return ""
	}
	family, generation, attributes := m[1], m[2], m[3]
	apple := family == "mac" && generation != "1"
	attributes, more, _ := strings.Cut(attributes, "-") // "i-flex", "e-gb200"
	if strings.Contains(attributes, "g") || strings.HasPrefix(more, "gb") || family == "a" || apple {
		return "arm64"
	}
	return "x86_64"
}
