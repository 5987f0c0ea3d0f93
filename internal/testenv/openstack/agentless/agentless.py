"""What lets Nova and Neutron run without agents and hypervisors."""
from neutron_lib.plugins.ml2 import api


class AlwaysBind(api.MechanismDriver):
    """Binds every port, as an agent on the host would have it."""

    def initialize(self):
        pass

    def bind_port(self, context):
        for segment in context.segments_to_bind:
            context.set_binding(segment[api.ID], 'ovs', {'port_filter': False}, status='ACTIVE')
            return
