"""The four plain stages of the graph, one after the other, without Ray."""

from reco.events.lake import Lake
from reco.rules.caps import Caps
from reco.rules.contact import Contacts
from reco.subscribers.store import SubscriberStore
from reco.subscribers.suppression import SuppressionList
from serve.archive import Archive
from serve.assembling import MailMaker
from serve.chunks import Assembled, Request
from serve.contact import Contact
from serve.fresh import FreshSlates
from serve.past import Past
from serve.picking import Picker
from serve.reading import Reader
from serve.scoring import Scoring
from serve.segments import Segments
from tests.small_world import World


class Stages:
    """The four plain stages, one after the other, without a model."""

    def __init__(self, world: World) -> None:
        services, client = world.services, world.online._redis
        self.reader = Reader(
            SubscriberStore(world.engine),
            SuppressionList(world.engine, services.link_key),
            world.online,
            FreshSlates(client),
            Segments(world.catalogue),
            Past(client),
            Contact(Contacts(client)),
        )
        self.scoring = Scoring(world.catalogue)
        self.picker = Picker(world.catalogue, world.online, Caps(client))
        self.maker = MailMaker(world.catalogue, services, Archive(Lake(services.lake)))

    def assemble(self, request: Request) -> Assembled:
        chunk = self.reader.read(request)
        return self.maker.make(chunk, self.picker.pick(chunk, self.scoring.score(chunk)))
