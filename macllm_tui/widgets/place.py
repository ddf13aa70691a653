"""A scrolled column that keeps its place: at the bottom while one is there, else at what one reads."""

from textual.containers import VerticalScroll
from textual.geometry import Size
from textual.layout import DockArrangeResult
from textual.widget import Widget

NEAR = 2  # rows from the bottom within which growth is followed


class PlaceKeeper(VerticalScroll):
    """Scrolls in the same pass that lays out: nothing jumps, whether text grows below or is put in above."""

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:  # noqa: A002
        super().__init__(id=id, classes=classes)
        self._following = True
        self._reading: Widget | None = None  # the topmost one on the screen, while nothing is followed
        self._offset = 0.0  # of the screen's top in it
        self._arranged: DockArrangeResult | None = None

    @property
    def following(self) -> bool:
        """Whether the bottom stays in sight while text is added there."""
        return self._following

    def follow(self) -> None:
        """Goes to the bottom and stays there."""
        self._following = True
        self._reading = None
        self.refresh(layout=True)

    def read(self, widget: Widget, offset: float) -> None:
        """Puts a row of a widget at the top of the screen, as far as the length below it allows."""
        self._following, self._reading, self._offset = False, widget, offset
        self.refresh(layout=True)

    def arrange(self, size: Size, optimal: bool = False) -> DockArrangeResult:
        """Lays out, and sets the scroll position before anything is drawn."""
        arranged = super().arrange(size, optimal)
        if not optimal and size.height:
            self._arranged = arranged
            self._keep(arranged, size)
            self.call_later(self.scrolled)
        return arranged

    def _keep(self, arranged: DockArrangeResult, size: Size) -> None:
        bottom = max(arranged.total_region.bottom - size.height, 0)
        place = float(bottom)
        if not self._following:
            regions = (each.region.y for each in arranged.placements if each.widget is self._reading)
            top = next(regions, None)
            if top is None:
                return
            wanted, place = top + self._offset, min(max(top + self._offset, 0.0), place)
            if wanted > place and self.at_end:  # there is no more below: it stays when more comes
                self._offset = place - top
        if place != self.scroll_y:
            self.set_reactive(Widget.scroll_y, place)
            self.set_reactive(Widget.scroll_target_y, place)
            if self.show_vertical_scrollbar:
                self.vertical_scrollbar.position = place

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        """Someone scrolled: upwards leaves the bottom, close to it comes back."""
        super().watch_scroll_y(old_value, new_value)
        left = self.max_scroll_y - new_value
        self._following = left <= (NEAR if new_value >= old_value else 0) and self.at_end
        self._reading = None
        if self._arranged is not None:
            for each in self._arranged.placements:
                if not each.fixed and each.region.bottom + each.margin.bottom > new_value:
                    self._reading, self._offset = each.widget, new_value - each.region.y
                    break
        self.scrolled()

    @property
    def at_end(self) -> bool:
        """Whether the last of what there is to see is in the column."""
        return True

    def scrolled(self) -> None:
        """Called when someone scrolled, or when the layout has changed."""
        if self.show_vertical_scrollbar:  # it may have come with this layout
            self.vertical_scrollbar.position = self.scroll_y
