"""Where delivery agents are found: a `twisted.plugin` package that any distribution may add modules to.

A plugin is a module-level object that provides `mailsuite.interfaces.IDeliveryAgentMaker`. Put the module into a
directory `mailsuite/plugins/` of your own distribution, without an `__init__.py` beside it.
"""

from twisted.plugin import pluginPackagePaths

__path__.extend(pluginPackagePaths(__name__))  # type: ignore[no-untyped-call]
__all__: list[str] = []
